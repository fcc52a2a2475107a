/**
 * Two real servers with one configuration and one clock: one over SQLite, one over PostgreSQL. A request is sent to one
 * of them and then to the other, never to both at once.
 */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Config } from '../../../src/config/config.ts'
import { type Server, startServer } from '../../../src/main.ts'
import { type AnyJson, clientOf, TEST_CONFIG } from '@latchkey/testing/test-server.ts'
import { openTestSchema } from '@latchkey/testing/test-schema.ts'

export const STORES = ['sqlite', 'postgres'] as const
export type StoreName = (typeof STORES)[number]

/** One value per store. */
export type Both<T> = { readonly [Name in StoreName]: T }

export type Answer = { readonly status: number; readonly body: AnyJson }

/** A request with what differs between the stores (tokens, cursors) as one value per store. */
export type PairRequest = {
  readonly method: string
  readonly path: Both<string>
  readonly token?: Both<string>
  readonly body?: Both<unknown>
}

const START_TS = 1_700_000_000_000
/** Connections per server: several test files run at once, and PostgreSQL has a hundred connections. */
const CONNECTIONS = 3

export function both<T>(valueOf: (store: StoreName) => T): Both<T> {
  return { sqlite: valueOf('sqlite'), postgres: valueOf('postgres') }
}

export class ServerPair {
  /** The clock of both servers. */
  now = START_TS
  readonly #configs: Both<Config>
  readonly #remove: () => Promise<void>
  #servers: Both<Server> | undefined

  /** @throws {Error} without LATCHKEY_TEST_POSTGRES. */
  static async start(config: Partial<Config>): Promise<ServerPair> {
    const schema = await openTestSchema(randomUUID())
    if (schema === undefined) throw new Error('LATCHKEY_TEST_POSTGRES is not set')
    const directories = both((store) => mkdtempSync(join(tmpdir(), `latchkey-same-answers-${store}-`)))
    const remove = async (): Promise<void> => {
      for (const store of STORES) rmSync(directories[store], { recursive: true, force: true })
      await schema.drop()
    }
    const common = { ...TEST_CONFIG, ...config }
    const pair = new ServerPair(
      {
        sqlite: { ...common, dataDir: directories.sqlite },
        postgres: {
          ...common,
          dataDir: directories.postgres,
          database: schema.database,
          databaseConnections: CONNECTIONS,
        },
      },
      remove,
    )
    try {
      await pair.#start()
      return pair
    } catch (error) {
      await remove()
      throw error
    }
  }

  private constructor(configs: Both<Config>, remove: () => Promise<void>) {
    this.#configs = configs
    this.#remove = remove
  }

  /** Sets the clock to the start of every history. */
  resetClock(): void {
    this.now = START_TS
  }

  async request(request: PairRequest): Promise<Both<Answer>> {
    return { sqlite: await this.ask('sqlite', request), postgres: await this.ask('postgres', request) }
  }

  /** Sends a request to one of the servers. */
  ask(store: StoreName, { method, path, token, body }: PairRequest): Promise<Answer> {
    return clientOf(this.#running[store].url).call(method, path[store], {
      ...(token && { token: token[store] }),
      ...(body && { body: body[store] }),
    })
  }

  /** Stops both servers in order, and starts them again over the same data. */
  async restart(): Promise<void> {
    await this.#stop()
    await this.#start()
  }

  async close(): Promise<void> {
    await this.#stop()
    await this.#remove()
  }

  get #running(): Both<Server> {
    if (this.#servers === undefined) throw new Error('the servers do not run')
    return this.#servers
  }

  async #start(): Promise<void> {
    const now = (): number => this.now
    const sqlite = await startServer(this.#configs.sqlite, { now })
    try {
      this.#servers = { sqlite, postgres: await startServer(this.#configs.postgres, { now }) }
    } catch (error) {
      await sqlite.close()
      throw error
    }
  }

  async #stop(): Promise<void> {
    const servers = this.#servers
    this.#servers = undefined
    for (const store of STORES) await servers?.[store].close()
  }
}
