/**
 * The trusted position: the last position that certainly means the same to the database and to every client, and the
 * time of its last write. It moves forward only when the database is opened with the witness that has seen every write:
 * even if that witness proves a rollback, no write has followed the rollback. Without that witness the database may
 * have been restored from a backup and written to, so that clients know other events at its positions.
 */
import type { Position } from '../../session.ts'
import type { Reader, Transaction } from './database.ts'
import { deleteMeta, readMeta, readNumber, writeMeta } from './meta.ts'

export type TrustedPosition = {
  readonly position: Position
  /** Milliseconds since 1970; undefined when no position was ever trusted. */
  readonly writtenTs: number | undefined
}

const POSITION = 'certain_position'
const WRITTEN_TS = 'certain_written_ts'
/** The writer whose witness has seen every write, since the beginning or since a raise. */
const WRITER = 'certain_writer'

export function readTrustedPosition(db: Reader): TrustedPosition {
  return { position: readNumber(db, POSITION), writtenTs: readMeta<number>(db, WRITTEN_TS) }
}

export function writeTrustedPosition(tx: Transaction, { position, writtenTs }: TrustedPosition): void {
  writeMeta(tx, POSITION, position)
  if (writtenTs !== undefined) writeMeta(tx, WRITTEN_TS, writtenTs)
}

/** The writer that has seen every write; undefined when none has. */
export function readTrustedWriter(db: Reader): string | undefined {
  return readMeta<string>(db, WRITER)
}

export function writeTrustedWriter(tx: Transaction, writerId: string | undefined): void {
  if (writerId === undefined) deleteMeta(tx, WRITER)
  else writeMeta(tx, WRITER, writerId)
}

/**
 * The end of lost epochs that the database never had: the earliest known end, because it is not known when they
 * diverged.
 */
export function endOfLostEpochs(db: Reader): Position {
  const first = db.one<{ pos: Position | null }>(`select min(end_pos) as pos from former_epochs`)?.pos
  const { position } = readTrustedPosition(db)
  return Math.min(first ?? position, position)
}
