/**
 * The schema of a database, and its migration to that of this program. Its number is in `meta`. Migrations run under a
 * lock, one transaction each, so that of several processes that start at once one migrates and the others wait.
 */
import { StoreError } from '../store-error.ts'
import type { Postgres, Queries, Transaction } from './database.ts'
import { migrations } from './migrations/index.ts'

/** One of the advisory locks of this program. */
const MIGRATE_LOCK = 0x6c6b_0003

/** The schema that this program works with. */
export const KNOWN_SCHEMA = migrations.length

/**
 * The number of the schema that a database has; 0 when it has none yet.
 *
 * @throws {StoreError} when the schema does not exist, or has tables of another program.
 */
export async function schemaOf(db: Queries): Promise<number> {
  const names = await db.one<{ meta: boolean; devices: boolean; schema: string | null; path: string }>(
    `select to_regclass('meta') is not null as meta, to_regclass('devices') is not null as devices,
       current_schema() as schema, current_setting('search_path') as path`,
  )
  if (names?.schema === null) {
    throw new StoreError(
      `The database has no schema ${names.path}, or this role may not use it. ` +
        'Run "create schema NAME authorization ROLE" there, or correct "?schema=NAME" in the database URL.',
    )
  }
  if (names?.meta !== true) {
    if (names?.devices !== true) return 0
    throw new StoreError(
      'The database has tables of another program. Give Latchkey its own database or schema.',
    )
  }
  const row = await db.one<{ value: string }>(`select value from meta where key = 'schema'`)
  const version = Number(row?.value)
  if (Number.isInteger(version)) return version
  throw new StoreError(
    'The database has a table "meta" of another program. Give Latchkey its own database or schema.',
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
 * One step of `migrate`; all steps in an empty database, so that no process finds a new one half made. Returns the
 * number before the step: that of this program when nothing was left to do.
 *
 * @throws {StoreError} as `migrate`.
 */
export async function migrateOnce(tx: Transaction): Promise<number> {
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
