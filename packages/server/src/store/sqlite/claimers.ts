/** Who claims, by number: the record of a million issues does not repeat a million names. */
import { LRUCache } from 'lru-cache'
import type { Database } from './database.ts'

export class Claimers {
  readonly #db: Database
  readonly #nums = new LRUCache<string, number>({ max: 50_000 })

  constructor(db: Database) {
    this.#db = db
  }

  /** The number of a claimer, given on first sight. Inside a transaction. */
  numOf(name: string): number {
    const cached = this.#nums.get(name)
    if (cached !== undefined) return cached
    const known = this.#db.one<{ claimer_num: number }>(
      `select claimer_num from claimers where name = ?`,
      name,
    )
    const num = known?.claimer_num ?? this.#db.insert(`insert into claimers (name) values (?)`, name)
    this.#nums.set(name, num)
    return num
  }

  /** After a rollback: numbers given in it are void. */
  forgetAll(): void {
    this.#nums.clear()
  }
}
