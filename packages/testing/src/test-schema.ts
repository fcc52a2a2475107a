/**
 * With LATCHKEY_TEST_POSTGRES (a URL), servers under test use PostgreSQL with one schema per data directory, so that a
 * server restarted over the same directory finds its data. Without it, they use the embedded store.
 */
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'

export type TestSchema = {
  /** Value of the configuration's `database`. */
  readonly database: string
  /** Directory for the witnesses of its stores (store/witness.ts). */
  readonly witnesses: string
  drop(): Promise<void>
}

const TEST_URL = process.env['LATCHKEY_TEST_POSTGRES']

/** The `skip` of a test that needs PostgreSQL: the reason, or false. */
export const skipWithoutPostgres =
  (TEST_URL === undefined || TEST_URL === '') && 'LATCHKEY_TEST_POSTGRES names no database to test with'

/** Undefined when tests use the embedded store. */
export async function openTestSchema(dataDir: string): Promise<TestSchema | undefined> {
  if (TEST_URL === undefined || TEST_URL === '') return undefined
  const name = `test_${createHash('sha256').update(dataDir).digest('hex').slice(0, 16)}`
  await execute(TEST_URL, `create schema if not exists ${name}`)
  const url = new URL(TEST_URL)
  url.searchParams.set('schema', name)
  const witnesses = mkdtempSync(join(tmpdir(), 'latchkey-witnesses-'))
  return {
    database: url.href,
    witnesses,
    async drop() {
      await execute(TEST_URL, `drop schema if exists ${name} cascade`)
      rmSync(witnesses, { recursive: true, force: true })
    },
  }
}

async function execute(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(sql)
  } finally {
    await client.end()
  }
}
