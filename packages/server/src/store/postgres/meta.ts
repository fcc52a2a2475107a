/** Values of the `meta` table, which belong to a database permanently. */
import { randomBytes } from 'node:crypto'
import { DEFAULT_SERVER_NAME, requireServerName } from '../server-name.ts'
import { WITNESS_PLACE } from '../witness-place.ts'
import type { Queries } from './database.ts'

/** A value of the `meta` table, created on first use. */
export async function readOrCreateMeta(db: Queries, key: string, create: () => string): Promise<string> {
  await db.run(`insert into meta (key, value) values ($1, $2) on conflict do nothing`, key, create())
  const row = await db.one<{ value: string }>(`select value from meta where key = $1`, key)
  if (row === undefined) throw new Error(`meta.${key} has no row after its insertion`)
  return row.value
}

/** The ID of this database, which its witnesses carry (store/witness.ts). */
export function databaseId(db: Queries): Promise<string> {
  return readOrCreateMeta(db, 'database_id', () => randomBytes(9).toString('base64url'))
}

/** The witness that last opened the database, as `recordOf` wrote it; undefined if none is recorded. */
export async function recordedPlace(db: Queries): Promise<string | undefined> {
  return (await db.one<{ value: string }>(`select value from meta where key = $1`, WITNESS_PLACE))?.value
}

export async function recordPlace(db: Queries, record: string): Promise<void> {
  await db.run(
    `insert into meta (key, value) values ($1, $2) on conflict (key) do update set value = excluded.value`,
    WITNESS_PLACE,
    record,
  )
}

/** @throws {StoreError} when the database belongs to another server name. */
export async function claimServerName(db: Queries, name: string | undefined): Promise<string> {
  const held = await readOrCreateMeta(db, 'server_name', () => name ?? DEFAULT_SERVER_NAME)
  requireServerName(held, name, 'another database')
  return held
}
