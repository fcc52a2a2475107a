/**
 * What the operations of the PostgreSQL store share. Each operation is a file of this folder, a function that takes the
 * core first; rules are asked of the domain, facts are looked up in the transaction.
 */
import type { DepletionDefence } from '../../pool/depletion.ts'
import type { PoolPolicy } from '../../pool/policy.ts'
import type { AdvertisedCounts } from '../advertised-counts.ts'
import { unavailable } from '../../matrix-error.ts'
import { Changes } from './changes.ts'
import type { Postgres, Queries } from './database.ts'
import type { DigestCache } from './digests.ts'
import { type Fence, LaneBehind, type Standing } from './fence.ts'
import type { Inboxes } from './inboxes.ts'
import type { LastSeen } from './last-seen.ts'
import type { Notifier } from './notifier.ts'
import type { AdvertisedPools } from './pool-status.ts'
import type { RowLimits } from '../row-limits.ts'

export type Core = {
  readonly db: Postgres
  readonly fence: Fence
  readonly notifier: Notifier
  readonly advertised: AdvertisedCounts<AdvertisedPools>
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

/** A write under way: statements, what it makes known, and the fence as it is for all of its time. */
export type Write = Queries & { readonly changes: Changes; readonly standing: Standing }

/** A lane is found behind once for every time that the database goes back; anything more is no fault of the fence. */
const MAX_ATTEMPTS = 3

/**
 * Runs `work` as one durable transaction; who is to be woken is told after its commit. May run it again after a deadlock.
 *
 * @throws {MatrixError} 503 when the database fails; whatever `work` throws, with nothing changed
 */
export async function write<T>(core: Core, work: (tx: Write) => Promise<T>): Promise<T> {
  const { result, acknowledged } = await commit(core, work)
  await acknowledged
  return result
}

/** As `write`, but resolves with the commit; the answer may leave when `acknowledged` resolves. */
export async function commit<T>(
  core: Core,
  work: (tx: Write) => Promise<T>,
): Promise<{ readonly result: T; readonly acknowledged: Promise<void> }> {
  const { db, fence } = core
  await fence.ready()
  for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
    try {
      return await attemptCommit(core, work)
    } catch (error) {
      if (!(error instanceof LaneBehind)) throw error
      await db.withConnection((connection) => fence.look(connection))
    }
  }
  throw unavailable('The counters of the fence are not to be relied on; nothing of this request was stored.')
}

async function attemptCommit<T>(
  { db, fence, notifier, now }: Core,
  work: (tx: Write) => Promise<T>,
): Promise<{ readonly result: T; readonly acknowledged: Promise<void> }> {
  let lane: number | undefined
  const { result, woken, acknowledge } = await db.transaction(
    async (connection, opened) => {
      const { standing, mark } = fence.entered(opened)
      const changes = new Changes()
      const tx: Write = {
        all: (sql, ...values) => connection.all(sql, ...values),
        one: (sql, ...values) => connection.one(sql, ...values),
        run: (sql, ...values) => connection.run(sql, ...values),
        changes,
        standing,
      }
      const result = await work(tx)
      const [woken, used] = [await changes.finish(tx, now()), lane ?? 0]
      return { result, woken, acknowledge: () => fence.witnessed(used, mark) }
    },
    {
      begin: () => fence.opening((lane = fence.takeLane())),
      ended(broken) {
        if (lane !== undefined) fence.releaseLane(lane, broken)
        lane = undefined
      },
    },
  )
  notifier.tell(woken)
  return { result, acknowledged: acknowledge() }
}
