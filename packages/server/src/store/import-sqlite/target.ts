/**
 * The PostgreSQL database that an import fills, in one transaction, which also creates its schema if it has none. The
 * database must be empty, and no server may have it open, because servers keep in memory what the import replaces.
 */
import { randomBytes } from 'node:crypto'
import type { Transaction } from '../postgres/database.ts'
import { KNOWN_SCHEMA, migrateOnce, requireSchema, schemaOf } from '../postgres/schema.ts'
import type { Database } from '../sqlite/database.ts'
import { StoreError } from '../store-error.ts'
import type { Source } from './source.ts'
import { TABLE_COPIES } from './table-copy.ts'

/** Tables that the import empties: a server that only started has written to them. Some are then filled. */
const OF_ITS_OWN = ['stream', 'writers', 'former_epochs', 'conflicts', 'wakes'] as const

/** @throws {StoreError} when the database is not empty, is in use, or has another schema than this program's. */
export async function prepareTarget(tx: Transaction, source: Source): Promise<void> {
  // Reads of the source between two statements, and the creation of an index, may take long.
  await tx.run(
    `select set_config('statement_timeout', '0', true), set_config('idle_in_transaction_session_timeout', '0', true)`,
  )
  const version = await schemaOf(tx)
  if (version === 0) while ((await migrateOnce(tx)) < KNOWN_SCHEMA);
  else requireSchema(version)
  // A server that starts during the import waits, and then finds the imported or the unchanged database.
  await tx.run(`lock table meta, ${OF_ITS_OWN.join(', ')} in access exclusive mode`)
  await requireEmpty(tx, source)
  await requireUnused(tx)
  for (const table of OF_ITS_OWN) await tx.run(`delete from ${table}`)
  await tx.run(`delete from meta where key <> 'schema'`)
}

async function requireEmpty(tx: Transaction, source: Source): Promise<void> {
  const users = (await tx.one<{ n: number }>(`select count(*) as n from users`))?.n ?? 0
  if (users > 0) {
    const secret = await tx.one<{ value: string }>(`select value from meta where key = 'token_secret'`)
    throw new StoreError(
      secret?.value === source.meta('token_secret')
        ? `The PostgreSQL database already has this installation, with ${users} users: it was imported before. Nothing was changed.`
        : `The PostgreSQL database is not empty: it has ${users} users. Import into an empty one. Nothing was changed.`,
    )
  }
  for (const { table } of TABLE_COPIES) {
    if ((OF_ITS_OWN as readonly string[]).includes(table)) continue
    if ((await tx.one(`select 1 from ${table} limit 1`)) === undefined) continue
    throw new StoreError(
      `The PostgreSQL database is not empty: its table ${table} has rows. Import into an empty one. Nothing was changed.`,
    )
  }
}

/** A database without a secret was never served: other connections use another schema, or will wait. */
async function requireUnused(tx: Transaction): Promise<void> {
  if ((await tx.one(`select 1 from meta where key = 'token_secret'`)) === undefined) return
  const others = await tx.one<{ n: number }>(
    `select count(*) as n from pg_stat_activity
     where datname = current_database() and application_name = 'latchkey' and pid <> pg_backend_pid()`,
  )
  if ((others?.n ?? 0) === 0) return
  throw new StoreError(
    `Latchkey servers have ${others?.n} connections to the PostgreSQL database: stop them first. Nothing was changed.`,
  )
}

/** The values of the whole installation: its name, the secret of its sync tokens, its stream and its fence. */
export async function copyInstallation(source: Source, tx: Transaction): Promise<void> {
  for (const key of ['server_name', 'token_secret']) {
    const value = source.meta(key)
    if (value !== undefined) await tx.run(`insert into meta (key, value) values ($1, $2)`, key, value)
  }
  await tx.run(
    `insert into stream (epoch, pos, fence, fallback_fence) values ($1, $2, $3, $4)`,
    source.meta('epoch') ?? randomBytes(12).toString('base64url'),
    source.meta('position') ?? 0,
    source.meta('fence') ?? 0,
    source.meta('fallback_fence') ?? 0,
  )
}

const HANDLES = [
  ['users', 'user_num'],
  ['devices', 'device_num'],
  ['pools', 'pool_num'],
  ['claimers', 'claimer_num'],
  ['awaited_users', 'awaited_num'],
] as const

/** New rows get handles above all earlier ones, because sync tokens may refer to devices that were removed. */
export async function continueHandles(source: Database, tx: Transaction): Promise<void> {
  for (const [table, column] of HANDLES) {
    const row = source.one<{ last: number }>(
      `select max(coalesce((select max(${column}) from ${table}), 0),
         coalesce((select seq from sqlite_sequence where name = ?), 0)) as last`,
      table,
    )
    await tx.run(`alter table ${table} alter column ${column} restart with ${(row?.last ?? 0) + 1}`)
  }
}

/** Updates the planner's statistics, because the first queries would otherwise be planned for an empty database. */
export async function analyze(tx: Transaction): Promise<void> {
  await tx.run(`analyze ${TABLE_COPIES.map(({ table }) => table).join(', ')}`)
}
