/**
 * What the operations of the PostgreSQL store share. Each operation is a file of this folder, a function that takes the
 * core first; rules are asked of the domain, facts are looked up in the transaction.
 */
import type { DepletionDefence } from '../../pool/depletion.ts'
import type { PoolPolicy } from '../../pool/policy.ts'
import type { Offers } from '../offers.ts'
import { Changes } from './changes.ts'
import type { Connection, Postgres, Queries } from './database.ts'
import type { DigestCache } from './digests.ts'
import type { Inboxes } from './inboxes.ts'
import type { LastSeen } from './last-seen.ts'
import type { Notifier } from './notifier.ts'
import type { Offer } from './pool-status.ts'
import type { RowLimits } from '../row-limits.ts'

export type Core = {
  readonly db: Postgres
  readonly notifier: Notifier
  readonly offers: Offers<Offer>
  readonly digests: DigestCache
  readonly inboxes: Inboxes
  readonly lastSeen: LastSeen
  readonly policy: PoolPolicy
  /** Undefined: claims are not limited. */
  readonly depletion: DepletionDefence | undefined
  readonly limits: RowLimits
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** A write under way: statements, and what it makes known. */
export type Write = Queries & { readonly changes: Changes }

/**
 * Runs `work` as one durable transaction; who is to be woken is told after its commit. May run it again after a deadlock.
 *
 * @throws {MatrixError} 503 when the database fails; whatever `work` throws, with nothing changed
 */
export async function write<T>(core: Core, work: (tx: Write) => Promise<T>): Promise<T> {
  const { result, woken } = await core.db.transaction(async (connection: Connection) => {
    const changes = new Changes()
    const tx: Write = {
      all: (sql, ...values) => connection.all(sql, ...values),
      one: (sql, ...values) => connection.one(sql, ...values),
      run: (sql, ...values) => connection.run(sql, ...values),
      changes,
    }
    const result = await work(tx)
    return { result, woken: await changes.finish(tx, core.now()) }
  })
  core.notifier.tell(woken)
  return result
}
