/**
 * Raises the fence (key-pool.md "Rollback fence"): a new epoch begins and all pools become stale, to be purged before
 * their next use (purge-stale-pools.ts). It writes a few rows, regardless of the number of devices.
 */
import { randomBytes } from 'node:crypto'
import { outlivesFallbackKeys, POSITION_JUMP } from '../../fence/judge.ts'
import type { Position } from '../../session.ts'
import type { Transaction } from './database.ts'
import { DATABASE_NOW } from './verified-starts.ts'

export type Evidence = {
  /** Human-readable; stored. */
  readonly reason: string
  /** Epochs of the lost writes. Those that the store does not know end where the present one does. */
  readonly epochs: readonly string[]
  /** The highest known position of the lost writes. */
  readonly position: Position
  /** Whether to purge fallback keys as well. Undefined: if the lost time is long enough (fence/judge.ts). */
  readonly dropFallbackKeys?: boolean
  /** Raised by an operator: writes were lost, if at all, after the last existing write. */
  readonly byCommand?: boolean
}

export type Raised = {
  readonly epoch: string
  readonly fence: number
  readonly reason: string
  readonly droppedFallbackKeys: boolean
}

/** The fence before it is raised. */
export type FenceRow = {
  readonly epoch: string
  readonly fence: number
  readonly position: Position
  /** The trusted position: up to it the database has not been rolled back. */
  readonly server_start_pos: Position
  /** Milliseconds since 1970: the last write before the server start. */
  readonly server_start_written_ts: number | null
  /** The time of the newest write. */
  readonly newest_ts: number | null
  /** The time of the database. */
  readonly now: number
}

/**
 * Waits for all writes in progress, and blocks new ones until the end of the transaction.
 *
 * @param evidenceIn checks the evidence again under the lock; undefined if another process has raised the fence for it
 */
export async function raiseFence(
  tx: Transaction,
  evidenceIn: (found: FenceRow) => Promise<Evidence | undefined>,
): Promise<Raised | undefined> {
  await tx.run(`lock table writers in exclusive mode`)
  const found = await tx.one<FenceRow>(
    `select epoch, fence, pos as position, server_start_pos, server_start_written_ts,
       (select max(ts) from writers where ts > 0) as newest_ts, ${DATABASE_NOW} as now
     from stream for update`,
  )
  if (found === undefined) throw new Error('the stream has no row')
  const evidence = await evidenceIn(found)
  if (evidence === undefined) return undefined
  const { now, newest_ts: newestTs } = found
  const lastWriteTs = evidence.byCommand === true ? newestTs : found.server_start_written_ts
  const dropsFallbackKeys = evidence.dropFallbackKeys ?? outlivesFallbackKeys({ lastWriteTs, newestTs, now })
  const epoch = randomBytes(12).toString('base64url')
  await tx.run(
    `insert into former_epochs (epoch, end_pos, ended_ts, reason)
     select epoch, $2, $3, $4 from unnest($1::text[]) as ended (epoch) on conflict do nothing`,
    [...new Set([found.epoch, ...evidence.epochs])],
    found.server_start_pos,
    now,
    evidence.reason,
  )
  await tx.run(
    `update stream set epoch = $1, fence = fence + 1, pos = greatest(pos, $2) + ${POSITION_JUMP},
       fallback_fence = case when $3 then fence + 1 else fallback_fence end`,
    epoch,
    evidence.position,
    dropsFallbackKeys,
  )
  return {
    epoch,
    fence: found.fence + 1,
    reason: evidence.reason,
    droppedFallbackKeys: dropsFallbackKeys,
  }
}
