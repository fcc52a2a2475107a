/** Installations for benchmarks: a filled template of either store, and server processes over a fresh copy of it. */
import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { type FilledDevice, fill, type Fillers, fillPostgres, type Filling } from './fill.ts'
import { type Running, startLatchkey } from './process.ts'

export type StoreKind = 'sqlite' | 'postgres'

export type Setup = {
  readonly name: string
  readonly store: StoreKind
  readonly processes: number
  readonly flags?: readonly string[]
  /** Checkout whose server runs. Default: this one. */
  readonly checkout?: string
}

export type Template = {
  readonly store: StoreKind
  /** Name of the directory or database. */
  readonly name: string
  readonly devices: readonly FilledDevice[]
}

export class Installations {
  readonly #directory: string
  readonly #clusterUrl: string
  #copies = 0

  /** The role of `clusterUrl` may create databases. */
  constructor(directory: string, clusterUrl: string) {
    this.#directory = directory
    this.#clusterUrl = clusterUrl
  }

  async fill(
    store: StoreKind,
    name: string,
    filling: Filling,
    by: Fillers = { fill, fillPostgres },
  ): Promise<Template> {
    if (store === 'sqlite') {
      const fillSqlite = by.fill
      return { store, name, devices: await fillSqlite({ dataDir: this.directoryOf(name), ...filling }) }
    }
    await this.#admin(`create database ${name}`)
    const devices = await by.fillPostgres({ database: this.databaseOf(name), ...filling })
    await query(this.databaseOf(name), 'vacuum analyze')
    await this.#admin('checkpoint')
    return { store, name, devices }
  }

  /** Runs `measure` with the processes of a setup over a fresh copy of the template. */
  async with(
    template: Template,
    { processes, flags = [], checkout }: Setup,
    measure: (servers: readonly Running[]) => Promise<void>,
  ): Promise<void> {
    const copy = `copy${this.#copies++}`
    const directory = mkdtempSync(join(this.#directory, `${copy}-`))
    const postgres = template.store === 'postgres'
    const all = postgres ? ['--database', this.databaseOf(copy), ...flags] : flags
    if (postgres) await this.#admin(`create database ${copy} template ${template.name}`)
    else cpSync(this.directoryOf(template.name), join(directory, '0'), { recursive: true })
    const servers: Running[] = []
    const start = { pinned: false, ...(checkout !== undefined && { checkout }) }
    try {
      // Flushes the copied data now instead of during the measurement.
      if (postgres) await this.#admin('checkpoint')
      execFileSync('sync')
      for (let n = 0; n < processes; n++) {
        servers.push(await startLatchkey(join(directory, `${n}`), all, start))
      }
      await measure(servers)
    } finally {
      await Promise.all(servers.map((server) => server.stop()))
      if (postgres) await this.#admin(`drop database ${copy} with (force)`)
      rmSync(directory, { recursive: true, force: true })
    }
  }

  async drop({ store, name }: Template): Promise<void> {
    if (store === 'postgres') await this.#admin(`drop database ${name} with (force)`)
    else rmSync(this.directoryOf(name), { recursive: true, force: true })
  }

  directoryOf(name: string): string {
    return join(this.#directory, name)
  }

  databaseOf(name: string): string {
    const url = new URL(this.#clusterUrl)
    url.pathname = `/${name}`
    return url.href
  }

  async #admin(sql: string): Promise<void> {
    await query(this.#clusterUrl, sql)
  }
}

/** Runs one statement on a new connection. */
export async function query<T extends object>(url: string, sql: string): Promise<T[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query<T>(sql)).rows
  } finally {
    await client.end()
  }
}
