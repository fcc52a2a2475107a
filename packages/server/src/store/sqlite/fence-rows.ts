/**
 * The fence in the tables: the epoch, how often it was raised, how epochs ended, and how far writers have counted.
 * What writes runs inside a transaction. The rule: fence/judge.ts.
 */
import { randomBytes } from 'node:crypto'
import { type Mark, outlivesFallbackKeys, POSITION_JUMP } from '../../fence/judge.ts'
import type { FenceStatus } from '../../fence/status.ts'
import type { Position } from '../../session.ts'
import { certainBeforeAll, readCertain, writeCertain } from './certain.ts'
import type { Database } from './database.ts'
import { readNumber, readOrCreateMeta, writeMeta } from './meta.ts'
import type { Positions } from './positions.ts'

export type FenceNumbers = {
  readonly epoch: string
  /** How often it was raised. Devices with a lower one are purged at first touch. */
  readonly number: number
  /** Devices with a lower one lose their fallback keys too. */
  readonly fallback: number
}

/** What is known of a database that went back. */
export type Evidence = {
  /** For people. */
  readonly reason: string
  /** Epochs that were seen outside; those that the store never had are remembered as ended. */
  readonly epochs: readonly string[]
  /** The highest position that was seen outside. */
  readonly position?: Position
  /** Undefined: if what was lost is long enough. */
  readonly dropFallbackKeys?: boolean
  /** An operator says so: what was lost, if anything, was lost after the last write that is there. */
  readonly byCommand?: boolean
}

export type Raised = FenceNumbers & { readonly droppedFallbackKeys: boolean }

/** This writer's only lane: commits come one after the other. */
export const LANE = 0

/** What the witness files of this database have in their names. */
export function databaseId(db: Database): string {
  return readOrCreateMeta(db, 'database_id', () => randomBytes(9).toString('base64url'))
}

export function readFence(db: Database): FenceNumbers {
  return {
    epoch: readOrCreateMeta(db, 'epoch', newEpoch),
    number: readNumber(db, 'fence'),
    fallback: readNumber(db, 'fallback_fence'),
  }
}

/**
 * Ends the epoch where it is certain (certain.ts), and so those that were lost. Devices are not touched: each is purged
 * when it is met (first-touch.ts).
 */
export function raiseFence(db: Database, positions: Positions, evidence: Evidence, now: number): Raised {
  const ended = readFence(db)
  const number = ended.number + 1
  const certain = readCertain(db)
  const lost = certainBeforeAll(db)
  const end = (epoch: string, position: Position): void => {
    db.run(
      `insert into former_epochs (epoch, end_pos, ended_ts, reason) values (?, ?, ?, ?) on conflict do nothing`,
      epoch,
      position,
      now,
      evidence.reason,
    )
  }
  end(ended.epoch, certain.position)
  for (const epoch of evidence.epochs) end(epoch, lost)
  const writtenTs = evidence.byCommand === true ? lastWriteTs(db) : certain.writtenTs
  const droppedFallbackKeys = evidence.dropFallbackKeys ?? outlivesFallbackKeys(writtenTs, now)
  const epoch = newEpoch()
  writeMeta(db, 'epoch', epoch)
  writeMeta(db, 'fence', number)
  if (droppedFallbackKeys) writeMeta(db, 'fallback_fence', number)
  positions.jump(Math.max(positions.last, evidence.position ?? 0) + POSITION_JUMP)
  positions.save()
  // In the new epoch every position is new.
  writeCertain(db, { position: positions.last, writtenTs: now })
  return { epoch, number, fallback: droppedFallbackKeys ? number : ended.fallback, droppedFallbackKeys }
}

/** Where an epoch ended; undefined when it is the present one, or was never one of this database. */
export function formerEnd(db: Database, epoch: string): Position | undefined {
  return db.one<{ end_pos: Position }>(`select end_pos from former_epochs where epoch = ?`, epoch)?.end_pos
}

export function formerEpochs(db: Database): Set<string> {
  return new Set(db.all<{ epoch: string }>(`select epoch from former_epochs`).map((row) => row.epoch))
}

/** The epochs that ended last, the newest first: positions only grow, whatever the clock does. */
export function lastEnded(db: Database, limit: number): FenceStatus['raised'] {
  return db.all<FenceStatus['raised'][number]>(
    `select epoch, ended_ts as endedTs, reason, end_pos as endPosition
     from former_epochs order by end_pos desc, ended_ts desc limit ?`,
    limit,
  )
}

/** How far a writer has counted, by lane. */
export function countersOf(db: Database, writerId: string): Map<number, number> {
  const rows = db.all<{ lane: number; n: number }>(
    `select lane, n from writers where writer_id = ?`,
    writerId,
  )
  return new Map(rows.map((row) => [row.lane, row.n]))
}

/** What a witness of this writer is to hold when it starts anew. */
export function marksOf(db: Database, writerId: string, epoch: string): Map<number, Mark> {
  return new Map([...countersOf(db, writerId)].map(([lane, n]) => [lane, { n, epoch }]))
}

/** Counts one more write of a writer; returns its number. */
export function countWrite(db: Database, writerId: string, now: number): number {
  const row = db.one<{ n: number }>(
    `insert into writers (writer_id, lane, n, ts) values (?1, ${LANE}, 1, ?2)
     on conflict do update set n = n + 1, ts = ?2 returning n`,
    writerId,
    now,
  )
  if (row === undefined) throw new Error('a counter was written and is not there')
  return row.n
}

/** Whether others than this writer have written, or it is not known who. */
export function hasHistory(db: Database): boolean {
  return readNumber(db, 'position') > 0 || lastWriteTs(db) !== undefined
}

/** Milliseconds since 1970; undefined when nothing was ever counted. */
export function lastWriteTs(db: Database): number | undefined {
  return db.one<{ ts: number | null }>(`select max(ts) as ts from writers`)?.ts ?? undefined
}

function newEpoch(): string {
  return randomBytes(12).toString('base64url')
}
