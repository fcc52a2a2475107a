/**
 * Marker of an embedded database that was imported into PostgreSQL. Servers on both copies would issue the same keys, so
 * a marked database is never opened by a server.
 */
import { StoreError } from '../store-error.ts'
import type { Database } from './database.ts'

export type Move = {
  /** The URL of the database, without its password. */
  readonly to: string
  /** Milliseconds since 1970. */
  readonly ts: number
}

const MOVED_TO = 'moved_to'
const MOVED_TS = 'moved_ts'

export function moveOf(db: Database): Move | undefined {
  const to = db.one<{ value: string }>(`select value from meta where key = ?`, MOVED_TO)?.value
  const ts = db.one<{ value: number }>(`select value from meta where key = ?`, MOVED_TS)?.value
  return to === undefined ? undefined : { to, ts: ts ?? 0 }
}

/** Inside a transaction. */
export function markMoved(db: Database, { to, ts }: Move): void {
  for (const [key, value] of [
    [MOVED_TO, to],
    [MOVED_TS, ts],
  ] as const) {
    db.run(`insert into meta (key, value) values (?1, ?2) on conflict do update set value = ?2`, key, value)
  }
}

/** Inside a transaction. */
export function unmarkMoved(db: Database): void {
  db.run(`delete from meta where key in (?, ?)`, MOVED_TO, MOVED_TS)
}

/** @throws {StoreError} when the installation was moved. */
export function requireNotMoved(db: Database, file: string): void {
  const move = moveOf(db)
  if (move === undefined) return
  throw new StoreError(
    `${file} was moved to ${move.to} (${new Date(move.ts).toISOString()}): serve that with --database. If the import did not finish, or was a trial and no client was served from PostgreSQL, undo it with "latchkey import sqlite ${file} --undo".`,
  )
}
