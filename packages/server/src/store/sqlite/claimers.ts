/** Numbers of claimers, so that records of issues do not repeat their names (pool/claimer-names.ts). */
import { LRUCache } from 'lru-cache'
import { isFreshNote, unusedBefore } from '../../pool/claimer-names.ts'
import type { Transaction } from './database.ts'

const NAMES_PER_STEP = 500

type Claimer = { readonly num: number; readonly notedTs: number }

export class Claimers {
  readonly #known = new LRUCache<string, Claimer>({ max: 50_000 })

  /** The number of a claimer, assigned at the first claim. Writes only once a day per claimer. */
  numOf(tx: Transaction, name: string, now: number): number {
    const cached = this.#known.get(name)
    if (cached !== undefined && isFreshNote(cached.notedTs, now)) return cached.num
    const known = find(tx, name)
    const claimer =
      known !== undefined && isFreshNote(known.notedTs, now) ? known : note(tx, name, now, known)
    this.#known.set(name, claimer)
    return claimer.num
  }

  /**
   * Deletes names without a record after `cutoff`. The newest name stays, because numbers continue from the highest one
   * in the table, and a record past its retention may still have the number of a deleted name.
   */
  sweep(tx: Transaction, cutoff: number): void {
    const deleted = tx.run(
      `delete from claimers where claimer_num in (
         select claimer_num from claimers indexed by claimers_by_noted_ts
         where noted_ts < ? and claimer_num < (select max(claimer_num) from claimers) limit ${NAMES_PER_STEP})`,
      unusedBefore(cutoff),
    )
    if (deleted > 0) this.forgetAll()
  }

  /** After a rollback: the numbers that it assigned are void. */
  forgetAll(): void {
    this.#known.clear()
  }
}

function find(tx: Transaction, name: string): Claimer | undefined {
  return tx.one(`select claimer_num as num, noted_ts as notedTs from claimers where name = ?`, name)
}

function note(tx: Transaction, name: string, now: number, known: Claimer | undefined): Claimer {
  if (known === undefined) {
    return { num: tx.insert(`insert into claimers (name, noted_ts) values (?, ?)`, name, now), notedTs: now }
  }
  tx.run(`update claimers set noted_ts = ? where claimer_num = ?`, now, known.num)
  return { num: known.num, notedTs: now }
}
