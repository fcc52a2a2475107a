/**
 * Which schema a database has, and how it gets the one that this program knows. The number is kept in `meta`; migrations
 * run under a lock, one transaction each, so that of several processes that begin at once one does it and the others wait.
 */
import { StoreError } from '../store-error.ts'
import type { Postgres, Queries } from './database.ts'
import { migrations } from './migrations/index.ts'

/** Of all advisory locks of this program. */
const MIGRATE_LOCK = 0x6c6b_0003

/** The schema that this program works with. */
export const KNOWN_SCHEMA = migrations.length

/**
 * The number of the schema that a database has; 0 when it has none yet.
 *
 * @throws {StoreError} when other tables are in the way.
 */
export async function schemaOf(db: Queries): Promise<number> {
  const names = await db.one<{ meta: boolean; devices: boolean }>(
    `select to_regclass('meta') is not null as meta, to_regclass('devices') is not null as devices`,
  )
  if (names?.meta !== true) {
    if (names?.devices !== true) return 0
    throw new StoreError(
      'The database has tables that are not of Latchkey. Give Latchkey a database, or a schema, of its own.',
    )
  }
  const row = await db.one<{ value: string }>(`select value from meta where key = 'schema'`)
  const version = Number(row?.value)
  if (Number.isInteger(version)) return version
  throw new StoreError(
    'The database has a table "meta" that is not of Latchkey. Give Latchkey a database, or a schema, of its own.',
  )
}

/** @throws {StoreError} when the schema is not the one that this program works with. */
export function requireSchema(version: number): void {
  if (version > KNOWN_SCHEMA) {
    throw new StoreError(
      `The database has schema ${version}, this Latchkey knows up to ${KNOWN_SCHEMA}. Use the newer Latchkey that wrote it.`,
    )
  }
  if (version < KNOWN_SCHEMA) {
    throw new StoreError(
      `The database has schema ${version}, this Latchkey works with ${KNOWN_SCHEMA}. Run "latchkey migrate" first.`,
    )
  }
}

/**
 * Brings a database to the schema that this program works with. Returns the numbers before and after.
 *
 * @throws {StoreError} when it is newer than that.
 */
export async function migrate(db: Postgres): Promise<{ readonly from: number; readonly to: number }> {
  let from: number | undefined
  for (;;) {
    const version = await db.transaction(migrateOnce)
    from ??= version
    if (version === KNOWN_SCHEMA) return { from, to: KNOWN_SCHEMA }
  }
}

/**
 * One step of it, in a transaction; all steps where there was nothing, so that nobody meets a new database half made.
 * Returns the number before: that of this program when there was nothing left to do.
 *
 * @throws {StoreError} as `migrate`.
 */
export async function migrateOnce(tx: Queries): Promise<number> {
  await tx.run(`select pg_advisory_xact_lock($1, hashtext(current_schema()))`, MIGRATE_LOCK)
  const found = await schemaOf(tx)
  if (found > KNOWN_SCHEMA) requireSchema(found)
  const steps = found === 0 ? migrations : migrations.slice(found, found + 1)
  if (steps.length === 0) return found
  for (const sql of steps) await tx.run(sql)
  await tx.run(
    `insert into meta (key, value) values ('schema', $1) on conflict (key) do update set value = excluded.value`,
    String(found + steps.length),
  )
  return found
}
