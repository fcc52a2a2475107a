/**
 * Raises the fence (key-pool.md "Rollback fence"): a new epoch, and every device's pools are purged when they are next
 * touched (purge-stale-pools.ts). However many devices there are, it writes a handful of rows.
 */
import { randomBytes } from 'node:crypto'
import { outlivesFallbackKeys, POSITION_JUMP } from '../../fence/judge.ts'
import type { Position } from '../../session.ts'
import type { Queries } from './database.ts'

export type Evidence = {
  /** For people, and kept. */
  readonly reason: string
  /** Epochs that it speaks of. Those that the store does not know end where the present one does. */
  readonly epochs: readonly string[]
  /** The highest position that it speaks of. */
  readonly position: Position
  /** Whether fallback keys go too; undefined: if what was lost is long enough (fence/judge.ts). */
  readonly dropFallbackKeys?: boolean
  /** An operator says so: what was lost, if anything, was lost after the last write that is there. */
  readonly byCommand?: boolean
}

export type Raised = {
  readonly epoch: string
  readonly fence: number
  readonly reason: string
  readonly droppedFallbackKeys: boolean
}

/** The fence as raising it found it. */
export type FenceRow = {
  readonly epoch: string
  readonly fence: number
  readonly position: Position
  /** Up to here positions mean the same to whoever has seen them: the database has not gone back before it. */
  readonly server_start_pos: Position
  /** Milliseconds since 1970; when the last write was made before that. */
  readonly server_start_written_ts: number | null
}

/**
 * Waits for every write that has begun, and holds up the others until the end of the transaction.
 *
 * @param judge looks at the evidence once more, under the lock: undefined if another process has raised the fence for it
 */
export async function raiseFence(
  tx: Queries,
  now: number,
  judge: (found: FenceRow) => Promise<Evidence | undefined>,
): Promise<Raised | undefined> {
  await tx.run(`lock table writers in exclusive mode`)
  const found = await tx.one<FenceRow>(
    `select epoch, fence, pos as position, server_start_pos, server_start_written_ts from stream for update`,
  )
  if (found === undefined) throw new Error('the stream has no row')
  const evidence = await judge(found)
  if (evidence === undefined) return undefined
  const lastWriteTs = evidence.byCommand === true ? await lastWrite(tx) : found.server_start_written_ts
  const dropsFallbackKeys = evidence.dropFallbackKeys ?? outlivesFallbackKeys(lastWriteTs ?? undefined, now)
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

/** Milliseconds since 1970. */
async function lastWrite(tx: Queries): Promise<number | null> {
  return (await tx.one<{ ts: number | null }>(`select max(ts) as ts from writers where ts > 0`))?.ts ?? null
}
