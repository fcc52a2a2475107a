/**
 * A temporary PostgreSQL cluster with its own directory, a free loopback port and full durability. It can crash and
 * start again, be copied (postgres-copy.ts) and have a replica (postgres-replica.ts).
 */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { findPostgresBinaries } from './postgres-binaries.ts'
import { makePostgresHome, type PostgresHome, type SmallDisk } from './postgres-home.ts'
import { freePort, type PostgresServer, type Settings, startPostgresServer } from './postgres-server.ts'

export type ClusterOptions = {
  /** In addition to the defaults below: `{ max_connections: '20' }`. */
  readonly settings?: Settings
  /** Puts it on its own small file system. Needs root (see `noSmallDisk`). */
  readonly disk?: SmallDisk
}

const USER = 'latchkey'

/** Other settings keep PostgreSQL's defaults: every commit waits for the disk. */
const SETTINGS: Settings = { listen_addresses: '127.0.0.1', max_connections: '300', fsync: 'on' }

/** @throws {Error} when no PostgreSQL is installed, or it does not start; the message has its output. */
export async function startPostgresCluster(options: ClusterOptions = {}): Promise<PostgresCluster> {
  const home = makePostgresHome(options.disk)
  try {
    const password = randomBytes(16).toString('hex')
    await initialise(home, password)
    const url = `postgres://${USER}:${password}@127.0.0.1:${await freePort()}/postgres`
    return await PostgresCluster.open(home, url, { ...SETTINGS, ...options.settings })
  } catch (error) {
    await home.remove()
    throw error
  }
}

export class PostgresCluster {
  /** Connects the superuser to the database `postgres`. Unchanged by a restart. */
  readonly url: string
  /** The cluster's own directory. */
  readonly home: PostgresHome
  readonly settings: Settings
  #server: PostgresServer

  /** Starts a cluster over an existing data directory. */
  static async open(home: PostgresHome, url: string, settings: Settings): Promise<PostgresCluster> {
    const all = { ...settings, unix_socket_directories: home.path }
    return new PostgresCluster(home, url, all, await startPostgresServer(home, url, all))
  }

  private constructor(home: PostgresHome, url: string, settings: Settings, server: PostgresServer) {
    this.home = home
    this.url = url
    this.settings = settings
    this.#server = server
  }

  get directory(): string {
    return this.home.path
  }

  /** False after a shutdown or a crash. */
  get running(): boolean {
    return this.#server.running
  }

  /** As `pg_ctl stop -m MODE`; `immediate` simulates a crash. */
  shutDown(mode: 'fast' | 'immediate'): Promise<void> {
    return this.#server.shutDown(mode)
  }

  /** Starts again on the same data and port. */
  async start(): Promise<void> {
    if (this.running) throw new Error('the cluster is already running')
    this.#server = await startPostgresServer(this.home, this.url, this.settings)
  }

  /** Runs one statement as the superuser on a new connection. */
  async query<T extends object>(sql: string, ...values: unknown[]): Promise<T[]> {
    const client = await this.connect()
    try {
      return (await client.query<T>(sql, values)).rows
    } finally {
      await client.end()
    }
  }

  /** A superuser session that holds its locks until it ends. Losing its connection emits no error event. */
  async connect(): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: this.url, application_name: 'test' })
    client.on('error', () => {})
    await client.connect()
    return client
  }

  /** Ends the cluster immediately and removes its directory. */
  async stop(): Promise<void> {
    await this.shutDown('immediate')
    await this.home.remove()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }
}

async function initialise(home: PostgresHome, password: string): Promise<void> {
  const file = home.write('password', password)
  const wal = home.wal === undefined ? [] : [`--waldir=${home.wal}`]
  const encoding = ['-E', 'UTF8', '--no-locale']
  await promisify(execFile)(
    join(findPostgresBinaries(), 'initdb'),
    ['-D', home.data, '-U', USER, ...encoding, '--auth=scram-sha-256', `--pwfile=${file}`, ...wal],
    { ...home.owner, cwd: home.path },
  )
}
