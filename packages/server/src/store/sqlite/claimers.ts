/** Numbers of claimers, so that the records of a million issues do not repeat a million names. */
import { LRUCache } from 'lru-cache'
import type { Transaction } from './database.ts'

export class Claimers {
  readonly #nums = new LRUCache<string, number>({ max: 50_000 })

  /** The number of a claimer, assigned at the first claim. */
  numOf(tx: Transaction, name: string): number {
    const cached = this.#nums.get(name)
    if (cached !== undefined) return cached
    const known = tx.one<{ claimer_num: number }>(`select claimer_num from claimers where name = ?`, name)
    const num = known?.claimer_num ?? tx.insert(`insert into claimers (name) values (?)`, name)
    this.#nums.set(name, num)
    return num
  }

  /** After a rollback: the numbers that it assigned are void. */
  forgetAll(): void {
    this.#nums.clear()
  }
}
