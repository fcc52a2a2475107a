/**
 * Stream positions: one counter for every change that a sync reports. Transactions take them, and SQLite runs one
 * transaction at a time, so a position never becomes visible after a higher one.
 */
import type { Position } from '../../session.ts'
import type { Reader, Transaction } from './database.ts'
import { readNumber, writeMeta } from './meta.ts'

export class Positions {
  readonly #db: Reader
  #last = 0
  #saved = 0

  constructor(db: Reader) {
    this.#db = db
    this.reload()
  }

  /** The highest position of all commits so far. */
  get last(): Position {
    return this.#last
  }

  next(_tx: Transaction): Position {
    return ++this.#last
  }

  /** Continues from a higher position, because the fence was raised. */
  jump(_tx: Transaction, to: Position): void {
    this.#last = to
  }

  /** Writes the counter if this transaction changed it. */
  save(tx: Transaction): void {
    if (this.#last === this.#saved) return
    writeMeta(tx, 'position', this.#last)
    this.#saved = this.#last
  }

  reload(): void {
    this.#last = readNumber(this.#db, 'position')
    this.#saved = this.#last
  }
}
