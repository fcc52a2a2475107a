/** Values of the `meta` table. */
import type { Database } from './database.ts'

/** A value, made on first use. */
export function readOrCreateMeta(db: Database, key: string, create: () => string): string {
  db.run(`insert into meta (key, value) values (?, ?) on conflict do nothing`, key, create())
  const row = db.one<{ value: string }>(`select value from meta where key = ?`, key)
  if (row === undefined) throw new Error(`meta.${key} vanished`)
  return row.value
}

/** A number; 0 until it was written. */
export function readNumber(db: Database, key: string): number {
  return db.one<{ value: number }>(`select value from meta where key = ?`, key)?.value ?? 0
}

export function writeMeta(db: Database, key: string, value: string | number): void {
  db.run(`insert into meta (key, value) values (?1, ?2) on conflict do update set value = ?2`, key, value)
}
