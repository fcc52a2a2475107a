/** Values of the `meta` table. */
import type { Reader, Transaction } from './database.ts'

/** Returns a value, and creates it on first use. */
export function readOrCreateMeta(tx: Transaction, key: string, create: () => string): string {
  tx.run(`insert into meta (key, value) values (?, ?) on conflict do nothing`, key, create())
  return readText(tx, key)
}

/** A text that was written when the database was opened. */
export function readText(db: Reader, key: string): string {
  const value = readMeta<string>(db, key)
  if (value === undefined) throw new Error(`meta.${key} does not exist`)
  return value
}

/** A number; 0 until it is written. */
export function readNumber(db: Reader, key: string): number {
  return readMeta<number>(db, key) ?? 0
}

export function readMeta<Value extends string | number>(db: Reader, key: string): Value | undefined {
  return db.one<{ value: Value }>(`select value from meta where key = ?`, key)?.value
}

export function writeMeta(tx: Transaction, key: string, value: string | number): void {
  tx.run(`insert into meta (key, value) values (?1, ?2) on conflict do update set value = ?2`, key, value)
}

export function deleteMeta(tx: Transaction, key: string): void {
  tx.run(`delete from meta where key = ?`, key)
}
