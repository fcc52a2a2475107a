/**
 * The rows of the fence: the epoch, the number of raises, the former epochs, the counters of writers (fence/judge.ts).
 */
import { randomBytes } from 'node:crypto'
import { type Mark, outlivesFallbackKeys, POSITION_JUMP } from '../../fence/judge.ts'
import type { FenceStatus } from '../../fence/status.ts'
import type { Position } from '../../session.ts'
import type { Reader, Transaction } from './database.ts'
import { readNumber, readOrCreateMeta, readText, writeMeta } from './meta.ts'
import type { Positions } from './positions.ts'
import { endOfLostEpochs, readTrustedPosition, writeTrustedPosition } from './trusted-position.ts'

export type FenceNumbers = {
  readonly epoch: string
  /** The number of raises. The pools of devices with a lower number are stale (purge-stale-pools.ts). */
  readonly number: number
  /** Devices with a lower number lose their fallback keys too. */
  readonly fallback: number
}

/** Evidence that a database was rolled back. */
export type Evidence = {
  /** For operators. */
  readonly reason: string
  /** Epochs that clients or witnesses have seen; those that the store never had are recorded as ended. */
  readonly epochs: readonly string[]
  /** The highest position that a client has seen. */
  readonly position?: Position
  /** Undefined: depends on the time of the last trusted write (fence/judge.ts). */
  readonly dropFallbackKeys?: boolean
  /** An operator raises the fence: only writes after the last write in the database may be lost. */
  readonly byCommand?: boolean
}

export type Raised = FenceNumbers & { readonly droppedFallbackKeys: boolean }

/** The only lane of this process: its commits never overlap. */
export const LANE = 0

/** Gives a new database its ID and its first epoch. */
export function createIdentity(tx: Transaction): void {
  readOrCreateMeta(tx, 'database_id', () => randomBytes(9).toString('base64url'))
  readOrCreateMeta(tx, 'epoch', newEpoch)
}

/** The part of its witnesses' file names that names the database. */
export function databaseId(db: Reader): string {
  return readText(db, 'database_id')
}

export function readFence(db: Reader): FenceNumbers {
  return {
    epoch: readText(db, 'epoch'),
    number: readNumber(db, 'fence'),
    fallback: readNumber(db, 'fallback_fence'),
  }
}

/**
 * Ends the epoch at the trusted position (trusted-position.ts), and the lost epochs too. Devices are not written: each
 * is purged before its next operation (purge-stale-pools.ts).
 */
export function raiseFence(tx: Transaction, positions: Positions, evidence: Evidence, now: number): Raised {
  const ended = readFence(tx)
  const number = ended.number + 1
  const trusted = readTrustedPosition(tx)
  const endOfLost = endOfLostEpochs(tx)
  const end = (epoch: string, position: Position): void => {
    tx.run(
      `insert into former_epochs (epoch, end_pos, ended_ts, reason) values (?, ?, ?, ?) on conflict do nothing`,
      epoch,
      position,
      now,
      evidence.reason,
    )
  }
  end(ended.epoch, trusted.position)
  for (const epoch of evidence.epochs) end(epoch, endOfLost)
  const writtenTs = evidence.byCommand === true ? lastWriteTs(tx) : trusted.writtenTs
  const droppedFallbackKeys =
    evidence.dropFallbackKeys ?? outlivesFallbackKeys({ lastWriteTs: writtenTs, newestTs: newestTs(tx), now })
  const epoch = newEpoch()
  writeMeta(tx, 'epoch', epoch)
  writeMeta(tx, 'fence', number)
  if (droppedFallbackKeys) writeMeta(tx, 'fallback_fence', number)
  positions.jump(tx, Math.max(positions.last, evidence.position ?? 0) + POSITION_JUMP)
  positions.save(tx)
  // No client has seen a position of the new epoch.
  writeTrustedPosition(tx, { position: positions.last, writtenTs: now })
  return { epoch, number, fallback: droppedFallbackKeys ? number : ended.fallback, droppedFallbackKeys }
}

/**
 * The position at which an epoch ended; undefined for the present epoch, and for epochs that the database never had.
 */
export function formerEnd(db: Reader, epoch: string): Position | undefined {
  return db.one<{ end_pos: Position }>(`select end_pos from former_epochs where epoch = ?`, epoch)?.end_pos
}

export function formerEpochs(db: Reader): Set<string> {
  return new Set(db.all<{ epoch: string }>(`select epoch from former_epochs`).map((row) => row.epoch))
}

/** The epochs that ended last, newest first. Ordered by position, because positions only grow and clocks may not. */
export function lastEnded(db: Reader, limit: number): FenceStatus['raised'] {
  return db.all<FenceStatus['raised'][number]>(
    `select epoch, ended_ts as endedTs, reason, end_pos as endPosition
     from former_epochs order by end_pos desc, ended_ts desc limit ?`,
    limit,
  )
}

/** The counters of a writer, by lane. */
export function countersOf(db: Reader, writerId: string): Map<number, number> {
  const rows = db.all<{ lane: number; n: number }>(
    `select lane, n from writers where writer_id = ?`,
    writerId,
  )
  return new Map(rows.map((row) => [row.lane, row.n]))
}

/** The marks that reset a witness of this writer to the database. */
export function marksOf(db: Reader, writerId: string, epoch: string): Map<number, Mark> {
  return new Map([...countersOf(db, writerId)].map(([lane, n]) => [lane, { n, epoch }]))
}

/** Counts a write of a writer; returns its number. */
export function countWrite(tx: Transaction, writerId: string, now: number): number {
  const row = tx.one<{ n: number }>(
    `insert into writers (writer_id, lane, n, ts) values (?1, ${LANE}, 1, ?2)
     on conflict do update set n = n + 1, ts = ?2 returning n`,
    writerId,
    now,
  )
  if (row === undefined) throw new Error('the counter of a writer does not exist after its write')
  return row.n
}

/** Whether anything was ever written to the database. */
export function hasHistory(db: Reader): boolean {
  return readNumber(db, 'position') > 0 || lastWriteTs(db) !== undefined
}

/** Milliseconds since 1970; undefined when no write was ever counted. */
export function lastWriteTs(db: Reader): number | undefined {
  return db.one<{ ts: number | null }>(`select max(ts) as ts from writers`)?.ts ?? undefined
}

/** The newest time of a write or of a raise; milliseconds since 1970. */
function newestTs(db: Reader): number | undefined {
  const row = db.one<{ ts: number | null }>(
    `select max(ts) as ts from (select ts from writers union all select ended_ts from former_epochs)`,
  )
  return row?.ts ?? undefined
}

function newEpoch(): string {
  return randomBytes(12).toString('base64url')
}
