/**
 * The context of the operations of the PostgreSQL store, and its write transaction. Each operation is a function that
 * takes the core first, in a file of this folder. It loads facts in the transaction and the domain decides.
 */
import type { AddedTransactions } from '../../messages/transaction-memory.ts'
import type { DepletionDefence } from '../../pool/depletion.ts'
import type { PoolPolicy } from '../../pool/policy.ts'
import type { AdvertisedCounts } from '../advertised-counts.ts'
import { unavailable } from '../../matrix-error.ts'
import { Changes } from './changes.ts'
import type { Postgres, Transaction } from './database.ts'
import type { DigestCache } from './digests.ts'
import { type Fence, FenceMismatchError, type FenceSnapshot } from './fence.ts'
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
  readonly addedTransactions: AddedTransactions
  readonly lastSeen: LastSeen
  readonly policy: PoolPolicy
  /** Undefined: claims are not limited. */
  readonly depletion: DepletionDefence | undefined
  readonly limits: RowLimits
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** A transaction whose commit is witnessed, with the fence at its start. Only `write` and `commit` make one. */
export type Write = Transaction & { readonly changes: Changes; readonly fence: FenceSnapshot }

/** Each rollback of the database causes one mismatch. More of them in one write are a fault. */
const MAX_ATTEMPTS = 3

/**
 * Runs `work` as one durable transaction, and wakes devices and users after its commit. May run it again after a
 * deadlock.
 *
 * @throws {MatrixError} 503 when the database fails; any error of `work`, with nothing changed
 */
export async function write<T>(core: Core, work: (tx: Write) => Promise<T>): Promise<T> {
  const { result, acknowledged } = await commit(core, work)
  await acknowledged
  return result
}

/** As `write`, but resolves with the commit. The answer may be sent when `acknowledged` resolves. */
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
      if (!(error instanceof FenceMismatchError)) throw error
      await db.withConnection((connection) => fence.verify(connection))
    }
  }
  throw unavailable('Fence counters could not be verified; the write was rolled back.')
}

async function attemptCommit<T>(
  { db, fence, notifier, now }: Core,
  work: (tx: Write) => Promise<T>,
): Promise<{ readonly result: T; readonly acknowledged: Promise<void> }> {
  let lane: number | undefined
  const { answer, woken, acknowledge } = await db.transaction(
    async (transaction, opened) => {
      const { snapshot, mark } = fence.readOpening(opened)
      const tx: Write = { ...transaction, changes: new Changes(), fence: snapshot }
      const result = await work(tx)
      const used = lane ?? 0
      const wakes = await tx.changes.finish(tx, now())
      const committingAtMs = performance.now()
      return {
        answer: result,
        woken: wakes,
        acknowledge: () => fence.acknowledge(used, mark, committingAtMs),
      }
    },
    {
      begin: () => fence.opening((lane = fence.lanes.take())),
      ended(broken) {
        if (lane !== undefined) fence.lanes.release(lane, broken)
        lane = undefined
      },
    },
  )
  notifier.notify(woken)
  return { result: answer, acknowledged: acknowledge() }
}
