/**
 * A PostgreSQL database that can be restored from a copy, and the directories of the processes that use it. A restore
 * drops the database and renames the copy. Runs on the server of LATCHKEY_TEST_POSTGRES.
 */
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { skipWithoutPostgres } from '@latchkey/testing/test-schema.ts'
import pg from 'pg'
import { DEFAULT_CONFIG, postgresOptions } from '../../src/config/config.ts'
import type { FenceEvent } from '../../src/fence/events.ts'
import type { Store } from '../../src/store.ts'
import { openPostgresStore } from '../../src/store/postgres/index.ts'
import { NOW } from './store-calls.ts'

const SERVER = process.env['LATCHKEY_TEST_POSTGRES'] ?? ''

/** The `skip` of a test: why there is no such database, or false. */
export const skip = skipWithoutPostgres

export type Opened = { readonly store: Store; readonly events: readonly FenceEvent[] }

export class RewindableDatabase {
  readonly name = `fence_${randomBytes(6).toString('hex')}`
  readonly directories: string[] = []
  readonly #stores = new Set<Store>()

  static async create(): Promise<RewindableDatabase> {
    const rewindable = new RewindableDatabase()
    await administer(`create database ${rewindable.name}`)
    return rewindable
  }

  /** Opens the store as a process with this directory does; `url` may lead through a proxy. */
  async open(directory = this.newDirectory(), now = () => NOW, url = this.url): Promise<Opened> {
    const events: FenceEvent[] = []
    const store = await openPostgresStore({
      ...postgresOptions({ ...DEFAULT_CONFIG, database: url, databaseConnections: 4 }),
      fence: { directory },
      onFence: (event) => events.push(event),
      now,
    })
    this.#stores.add(store)
    return { store, events }
  }

  get url(): string {
    return urlOf(this.name)
  }

  newDirectory(): string {
    const directory = mkdtempSync(join(tmpdir(), 'latchkey-fence-'))
    this.directories.push(directory)
    return directory
  }

  /** Copies the database. No connection may be open. */
  async backUp(): Promise<void> {
    await administer(`create database ${this.name}_backup template ${this.name}`)
  }

  /** Replaces the database by the copy. Every connection ends. */
  async restore(): Promise<void> {
    await administer(`drop database ${this.name} with (force)`)
    await administer(`alter database ${this.name}_backup rename to ${this.name}`)
  }

  /** Exchanges the database and the copy, as an operator who tries the copy and goes back. Every connection ends. */
  async exchange(): Promise<void> {
    await administer(`alter database ${this.name} allow_connections false`)
    await this.cutAll()
    await administer(`alter database ${this.name} rename to ${this.name}_left`)
    await administer(`alter database ${this.name}_backup rename to ${this.name}`)
    await administer(`alter database ${this.name}_left rename to ${this.name}_backup`)
    await administer(`alter database ${this.name} allow_connections true`)
  }

  /** Ends every connection. */
  async cutAll(): Promise<void> {
    await administer(`select pg_terminate_backend(pid) from pg_stat_activity where datname = '${this.name}'`)
  }

  async query<T extends object>(sql: string): Promise<T[]> {
    return administer<T>(sql, this.name)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const store of this.#stores) await store.close()
    for (const name of [this.name, `${this.name}_backup`])
      await administer(`drop database if exists ${name} with (force)`)
    for (const directory of this.directories) rmSync(directory, { recursive: true, force: true })
  }
}

async function administer<T extends object>(sql: string, database?: string): Promise<T[]> {
  const client = new pg.Client({ connectionString: urlOf(database) })
  await client.connect()
  try {
    return (await client.query<T>(sql)).rows
  } finally {
    await client.end()
  }
}

/** The URL of a database on the test server. */
function urlOf(database?: string): string {
  const url = new URL(SERVER)
  if (database !== undefined) url.pathname = `/${database}`
  return url.href
}
