/**
 * Stream positions: one counter for everything that a sync reports. They are taken inside transactions, which SQLite
 * runs one at a time, so a position never becomes visible after a higher one.
 */
import type { Position } from '../../session.ts'
import type { Database } from './database.ts'
import { readNumber, writeMeta } from './meta.ts'

export class Positions {
  readonly #db: Database
  #last = 0
  #saved = 0

  constructor(db: Database) {
    this.#db = db
    this.reload()
  }

  /** The highest position of all commits so far. */
  get last(): Position {
    return this.#last
  }

  next(): Position {
    return ++this.#last
  }

  /** Goes on from a higher position: the fence was raised. */
  jump(to: Position): void {
    this.#last = to
  }

  /** Keeps the counter in the transaction that took from it. */
  save(): void {
    if (this.#last === this.#saved) return
    writeMeta(this.#db, 'position', this.#last)
    this.#saved = this.#last
  }

  reload(): void {
    this.#last = readNumber(this.#db, 'position')
    this.#saved = this.#last
  }
}
