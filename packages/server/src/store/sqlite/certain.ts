/**
 * How far a database means the same to everyone who was ever answered from it: its position and the time of its last
 * write when it was last certain that nothing had been lost unnoticed. Certain it is at an open with the witness that has
 * seen every write before, whatever that witness says: nobody has written since the database went back, if it did. Behind
 * another witness it may have been put back and written to, with positions that clients have seen something else at.
 */
import type { Position } from '../../session.ts'
import type { Database } from './database.ts'
import { readNumber, writeMeta } from './meta.ts'

export type Certain = {
  readonly position: Position
  /** Milliseconds since 1970; undefined when it was never certain. */
  readonly writtenTs: number | undefined
}

const POSITION = 'certain_position'
const WRITTEN_TS = 'certain_written_ts'
/** The writer whose witness has seen every write, from the beginning or from a raise on. */
const WRITER = 'certain_writer'

export function readCertain(db: Database): Certain {
  return {
    position: readNumber(db, POSITION),
    writtenTs: db.one<{ value: number }>(`select value from meta where key = ?`, WRITTEN_TS)?.value,
  }
}

/** Keeps it in the transaction. */
export function writeCertain(db: Database, { position, writtenTs }: Certain): void {
  writeMeta(db, POSITION, position)
  if (writtenTs !== undefined) writeMeta(db, WRITTEN_TS, writtenTs)
}

/** Undefined: nobody has seen every write. */
export function certainWriter(db: Database): string | undefined {
  return db.one<{ value: string }>(`select value from meta where key = ?`, WRITER)?.value
}

export function writeCertainWriter(db: Database, writerId: string | undefined): void {
  if (writerId === undefined) db.run(`delete from meta where key = ?`, WRITER)
  else writeMeta(db, WRITER, writerId)
}

/** Where lost epochs ended that the database never had: nobody knows when they parted from it. */
export function certainBeforeAll(db: Database): Position {
  const first = db.one<{ pos: Position | null }>(`select min(end_pos) as pos from former_epochs`)?.pos
  const { position } = readCertain(db)
  return Math.min(first ?? position, position)
}
