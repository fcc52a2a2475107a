/**
 * Support for tests of the import: embedded servers, their files after a crash, empty PostgreSQL databases, the
 * command.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { cpSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { skipWithoutPostgres } from '@latchkey/testing/test-schema.ts'
import pg from 'pg'
import type { Config } from '../../src/config/config.ts'
import { startServer } from '../../src/main.ts'
import { type Ended, runLatchkey } from '@latchkey/testing/run-latchkey.ts'
import { clientOf, TEST_CONFIG, type TestServer } from '@latchkey/testing/test-server.ts'

const URL_OF_TESTS = process.env['LATCHKEY_TEST_POSTGRES'] ?? ''

export const skip = skipWithoutPostgres

/** Everything that a test creates; removed at its end. */
export class ImportHome {
  readonly #directory = mkdtempSync(join(tmpdir(), 'latchkey-import-'))
  readonly #databases: string[] = []
  readonly #servers: TestServer[] = []

  /** An empty directory. */
  directory(): string {
    return mkdtempSync(join(this.#directory, 'data-'))
  }

  /** The URL of an empty database of its own, because the import checks the whole database for running servers. */
  async database(): Promise<string> {
    const name = `import_${randomBytes(8).toString('hex')}`
    await query(URL_OF_TESTS, `create database ${name}`)
    this.#databases.push(name)
    const url = new URL(URL_OF_TESTS)
    url.pathname = `/${name}`
    return url.href
  }

  /** Starts a server, embedded or over a database. */
  async serve(config: Partial<Config> & { readonly dataDir: string }): Promise<TestServer> {
    const { rates: _unlimited, ...base } = TEST_CONFIG
    const server = await startServer({ ...base, databaseConnections: 5, ...config })
    const started = {
      ...server,
      ...clientOf(server.url),
      dataDir: config.dataDir,
      [Symbol.asyncDispose]: () => server.close(),
    }
    this.#servers.push(started)
    return started
  }

  /** Copies what a killed process would leave of an embedded server: its files as they are, including the log. */
  crashed({ dataDir }: Pick<TestServer, 'dataDir'>): string {
    const copy = this.directory()
    for (const file of ['latchkey.db', 'latchkey.db-wal']) {
      if (existsSync(join(dataDir, file))) cpSync(join(dataDir, file), join(copy, file))
    }
    return copy
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) await server.close()
    for (const name of this.#databases) await query(URL_OF_TESTS, `drop database ${name} with (force)`)
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

export async function query<T extends object>(url: string, sql: string): Promise<T[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query<T>(sql)).rows
  } finally {
    await client.end()
  }
}

export function importInto(database: string, path: string, ...flags: readonly string[]): Promise<Ended> {
  return runLatchkey(['import', 'sqlite', path, ...flags], { environment: { LATCHKEY_DATABASE: database } })
}

export async function imported(database: string, path: string, ...flags: readonly string[]): Promise<Ended> {
  const ended = await importInto(database, path, ...flags)
  assert.equal(ended.code, 0, ended.stderr)
  return ended
}

/** Requires a refusal with one line for the operator. */
export function refusedWith(ended: Ended, pattern: RegExp): void {
  assert.equal(ended.code, 1, ended.stdout)
  assert.match(ended.stderr, pattern)
  assert.equal(ended.stderr.trimEnd().split('\n').length, 1, ended.stderr)
  assert.equal(ended.stdout, '')
}

/** The number of tables in a database. */
export async function tablesOf(database: string): Promise<number> {
  const rows = await query(database, `select 1 from pg_tables where schemaname = current_schema()`)
  return rows.length
}

export function embeddedQuery(directory: string, sql: string): unknown[] {
  const db = new DatabaseSync(join(directory, 'latchkey.db'))
  try {
    return db.prepare(sql).all()
  } finally {
    db.close()
  }
}
