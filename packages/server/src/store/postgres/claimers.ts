/**
 * Numbers of claimers, so that each recorded issue has a number instead of a name (pool/claimer-names.ts). Each process
 * remembers numbers. A sweep in another process does not tell it; the time of the note does, unless the clocks of two
 * processes differ by more than the retention.
 */
import { LRUCache } from 'lru-cache'
import { isFreshNote, unusedBefore } from '../../pool/claimer-names.ts'
import type { Postgres, Transaction } from './database.ts'

const MAX_KNOWN = 50_000
const NAMES_PER_STEP = 500

type Claimer = { readonly claimer_num: number; readonly noted_ts: number }

export class Claimers {
  readonly #db: Postgres
  readonly #known = new LRUCache<string, Promise<Claimer>>({ max: MAX_KNOWN })

  constructor(db: Postgres) {
    this.#db = db
  }

  /** The number of a claimer; a new one gets the next number. Claims at the same time share one look-up. */
  async numOf(name: string, now: number): Promise<number> {
    for (;;) {
      const known = this.#known.get(name) ?? this.#remember(name, find(this.#db, name, now))
      const { claimer_num: num, noted_ts: notedTs } = await known
      if (isFreshNote(notedTs, now)) return num
      this.#forget(name, known)
    }
  }

  /** The database may have been replaced by an older copy (fence.ts). */
  forgetAll(): void {
    this.#known.clear()
  }

  #remember(name: string, claimer: Promise<Claimer>): Promise<Claimer> {
    this.#known.set(name, claimer)
    claimer.catch(() => this.#forget(name, claimer))
    return claimer
  }

  /** Another claim may have begun the next look-up. */
  #forget(name: string, claimer: Promise<Claimer>): void {
    if (this.#known.peek(name) === claimer) this.#known.delete(name)
  }
}

/** Deletes names without a record after `cutoff`. A claim that is noting one of them waits, and gets a new number. */
export async function forgetClaimers(tx: Transaction, cutoff: number): Promise<void> {
  await tx.run(
    `delete from claimers where claimer_num in
       (select claimer_num from claimers where noted_ts < $1 limit ${NAMES_PER_STEP} for update skip locked)`,
    unusedBefore(cutoff),
  )
}

/** Writes only once a day per claimer. */
async function find(db: Postgres, name: string, now: number): Promise<Claimer> {
  const known = await db.one<Claimer>(`select claimer_num, noted_ts from claimers where name = $1`, name)
  if (known !== undefined && isFreshNote(known.noted_ts, now)) return known
  const noted = await db.one<Claimer>(
    `insert into claimers as known (name, noted_ts) values ($1, $2)
     on conflict (name) do update set noted_ts = greatest(known.noted_ts, excluded.noted_ts)
     returning claimer_num, noted_ts`,
    name,
    now,
  )
  if (noted === undefined) throw new Error('an inserted claimer has no row')
  return noted
}
