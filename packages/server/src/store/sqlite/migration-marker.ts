/**
 * Marker of an embedded database that was imported into PostgreSQL. Servers on both copies would issue the same keys,
 * so a server never opens a marked database.
 */
import { StoreError } from '../store-error.ts'
import type { Reader, Transaction } from './database.ts'
import { deleteMeta, readMeta, writeMeta } from './meta.ts'

export type Move = {
  /** The URL of the PostgreSQL database, without its password. */
  readonly to: string
  /** Milliseconds since 1970. */
  readonly ts: number
}

const MOVED_TO = 'moved_to'
const MOVED_TS = 'moved_ts'

export function moveOf(db: Reader): Move | undefined {
  const to = readMeta<string>(db, MOVED_TO)
  return to === undefined ? undefined : { to, ts: readMeta<number>(db, MOVED_TS) ?? 0 }
}

export function markMoved(tx: Transaction, { to, ts }: Move): void {
  writeMeta(tx, MOVED_TO, to)
  writeMeta(tx, MOVED_TS, ts)
}

export function unmarkMoved(tx: Transaction): void {
  deleteMeta(tx, MOVED_TO)
  deleteMeta(tx, MOVED_TS)
}

/** @throws {StoreError} when the installation was moved. */
export function requireNotMoved(db: Reader, file: string): void {
  const move = moveOf(db)
  if (move === undefined) return
  throw new StoreError(
    `${file} was moved to ${move.to} (${new Date(move.ts).toISOString()}): serve that with --database. If the import did not finish, or was a trial and no client was served from PostgreSQL, undo it with "latchkey import sqlite ${file} --undo".`,
  )
}
