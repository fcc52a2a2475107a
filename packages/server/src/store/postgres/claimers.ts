/** Numbers of claimers, so that each recorded issue has a number instead of a name. They are never deleted. */
import { LRUCache } from 'lru-cache'
import type { Postgres } from './database.ts'

const MAX_KNOWN = 50_000

export class Claimers {
  readonly #db: Postgres
  readonly #nums = new LRUCache<string, Promise<number>>({ max: MAX_KNOWN })

  constructor(db: Postgres) {
    this.#db = db
  }

  /** The number of a claimer; a new one gets the next number. */
  numOf(name: string): Promise<number> {
    const known = this.#nums.get(name)
    if (known !== undefined) return known
    const num = this.#find(name)
    this.#nums.set(name, num)
    num.catch(() => this.#nums.delete(name))
    return num
  }

  /** The database may have been replaced by an older copy (fence.ts). */
  forgetAll(): void {
    this.#nums.clear()
  }

  async #find(name: string): Promise<number> {
    await this.#db.run(`insert into claimers (name) values ($1) on conflict do nothing`, name)
    const row = await this.#db.one<{ claimer_num: number }>(
      `select claimer_num from claimers where name = $1`,
      name,
    )
    if (row === undefined) throw new Error('an inserted claimer has no row')
    return row.claimer_num
  }
}
