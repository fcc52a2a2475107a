/**
 * The connections to PostgreSQL, and the only way to write: a transaction on one of a bounded number of connections.
 * Every wait has a bound, and whatever the network, the primary or the disk does to a request ends as 503: nothing of it
 * was acknowledged. Deadlocks and serialization failures are tried again; any other error of a statement is a bug.
 */
import pg from 'pg'
import { MatrixError, unavailable } from '../../matrix-error.ts'
import { StoreError } from '../store-error.ts'

export type PostgresOptions = {
  /** `postgres://user@host:port/database` */
  readonly url: string
  /** Connections for requests. Another one listens. */
  readonly connections: number
  /** The schema of the tables; `public` where nothing is said. */
  readonly schema?: string
}

/** A row as the driver returns it: bigint as number, bytea as Buffer. */
export type Row = object

/** What statements run on: the pool, or one transaction. */
export interface Queries {
  all<T extends Row>(sql: string, ...values: unknown[]): Promise<T[]>
  one<T extends Row>(sql: string, ...values: unknown[]): Promise<T | undefined>
  /** The number of rows that were changed. */
  run(sql: string, ...values: unknown[]): Promise<number>
}

/** Requests that may wait for a connection: beyond it they are told to come back. */
const MAX_WAITING = 2_000
const CONNECT_TIMEOUT_MS = 5_000
const STATEMENT_TIMEOUT_MS = 30_000
const LOCK_TIMEOUT_MS = 10_000
/** A transaction whose process hangs or lost its network must not hold its locks for ever. */
const IDLE_IN_TRANSACTION_MS = 15_000
const MAX_ATTEMPTS = 5

const INT8 = 20

/** Positions, handles and times are far below 2^53: numbers, as everywhere else. */
const TYPES: pg.CustomTypesConfig = {
  getTypeParser: (oid: number, format?: 'text' | 'binary') =>
    oid === INT8 ? (text: string) => Number(text) : pg.types.getTypeParser(oid, format as 'text'),
}

export class Postgres implements Queries {
  readonly #pool: pg.Pool
  readonly #options: PostgresOptions
  #closing: Promise<void> | undefined

  /** @param onConnect runs on every new connection before its first use; what it throws refuses the connection */
  constructor(
    options: PostgresOptions,
    onConnect: (client: pg.ClientBase) => Promise<void> = async () => {},
  ) {
    this.#options = options
    this.#pool = new pg.Pool({
      ...connectionConfig(options),
      max: options.connections,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      // oxlint-disable-next-line typescript/no-misused-promises -- the pool waits for it, which its types leave out
      onConnect: async (client) => {
        await prepareConnection(client, options.schema)
        await onConnect(client)
      },
    })
    // A connection that fails while idle is replaced when it is next needed; requests in flight hear of it themselves.
    this.#pool.on('error', () => {})
  }

  /** A connection of its own, for LISTEN. The caller connects and ends it. */
  newClient(): pg.Client {
    return new pg.Client({ ...connectionConfig(this.#options), connectionTimeoutMillis: CONNECT_TIMEOUT_MS })
  }

  async all<T extends Row>(sql: string, ...values: unknown[]): Promise<T[]> {
    const client = await this.#connect()
    try {
      return (await client.query<T>(statement(sql, values))).rows
    } catch (error) {
      throw asUnavailable(error)
    } finally {
      client.release()
    }
  }

  async one<T extends Row>(sql: string, ...values: unknown[]): Promise<T | undefined> {
    return (await this.all<T>(sql, ...values))[0]
  }

  async run(sql: string, ...values: unknown[]): Promise<number> {
    const client = await this.#connect()
    try {
      return (await client.query(statement(sql, values))).rowCount ?? 0
    } catch (error) {
      throw asUnavailable(error)
    } finally {
      client.release()
    }
  }

  /**
   * Runs `work` in a transaction; commits when it resolves, and undoes everything when it rejects. Runs it again after
   * a deadlock or a serialization failure, so it must do nothing outside the transaction that cannot be done twice.
   *
   * @throws {MatrixError} 503 when the database cannot be reached or the outcome of the commit is unknown
   */
  async transaction<T>(
    work: (connection: Connection) => Promise<T>,
    mode: 'write' | 'snapshot' = 'write',
  ): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const client = await this.#connect()
      let broken: Error | undefined
      try {
        await client.query(mode === 'write' ? 'begin' : 'begin isolation level repeatable read read only')
        const result = await work(new Connection(client))
        await client.query('commit')
        return result
      } catch (error) {
        await client.query('rollback').catch((failure: Error) => (broken = failure))
        if (!isTryAgain(error) || attempt === MAX_ATTEMPTS) throw asUnavailable(error)
      } finally {
        client.release(broken)
      }
    }
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#pool.end())
  }

  async #connect(): Promise<pg.PoolClient> {
    if (this.#closing !== undefined) throw unavailable('The server is shutting down.')
    if (this.#pool.waitingCount >= MAX_WAITING)
      throw unavailable('More requests are waiting than the server holds.')
    try {
      return await this.#pool.connect()
    } catch (error) {
      if (error instanceof StoreError) throw error
      const failure = unavailable('The database cannot be reached; nothing of this request was stored.')
      failure.cause = error
      throw failure
    }
  }
}

/** One connection inside a transaction. */
export class Connection implements Queries {
  readonly client: pg.PoolClient

  constructor(client: pg.PoolClient) {
    this.client = client
  }

  async all<T extends Row>(sql: string, ...values: unknown[]): Promise<T[]> {
    return (await this.client.query<T>(statement(sql, values))).rows
  }

  async one<T extends Row>(sql: string, ...values: unknown[]): Promise<T | undefined> {
    return (await this.all<T>(sql, ...values))[0]
  }

  async run(sql: string, ...values: unknown[]): Promise<number> {
    return (await this.client.query(statement(sql, values))).rowCount ?? 0
  }
}

function statement(text: string, values: unknown[]): pg.QueryConfig {
  return { text, values, types: TYPES }
}

function connectionConfig({ url }: PostgresOptions): pg.ClientConfig {
  return { connectionString: url, application_name: 'latchkey', keepAlive: true }
}

/**
 * Set by statements, because poolers refuse start-up options. `synchronous_commit` is only ever made stronger: a cluster
 * that is set to lose commits must not weaken "durable", and one that waits for its replicas keeps doing so.
 */
async function prepareConnection(client: pg.ClientBase, schema: string | undefined): Promise<void> {
  await client.query({
    text: `select set_config('lock_timeout', $1, false), set_config('statement_timeout', $2, false),
      set_config('idle_in_transaction_session_timeout', $3, false),
      set_config('search_path', coalesce($4, current_setting('search_path')), false),
      set_config('synchronous_commit', case when current_setting('synchronous_commit') in ('off', 'local')
        then 'on' else current_setting('synchronous_commit') end, false)`,
    values: [`${LOCK_TIMEOUT_MS}`, `${STATEMENT_TIMEOUT_MS}`, `${IDLE_IN_TRANSACTION_MS}`, schema ?? null],
  })
}

/** Deadlock, serialization failure. */
function isTryAgain(error: unknown): boolean {
  return error instanceof pg.DatabaseError && (error.code === '40P01' || error.code === '40001')
}

/**
 * Faults of the connection, the primary or its disk: classes 08 (connection), 53 (out of memory, disk, connections),
 * 57 (shut down, cancelled by a time-out), 55P03 (waited too long for a lock), 25006 (this is a standby), 58 and XX (its
 * files), 40 (given up after trying again). A statement that is wrong is a bug and stays one.
 */
const FAULTS = /^(?:08|53|57|58|XX|40)|^(?:55P03|25006)$/

function asUnavailable(error: unknown): unknown {
  if (error instanceof MatrixError || error instanceof StoreError) return error
  const isFault = error instanceof pg.DatabaseError ? FAULTS.test(error.code ?? '') : isConnectionFault(error)
  if (!isFault) return error
  const failure = unavailable('The database failed; nothing of this request was acknowledged.')
  failure.cause = error
  return failure
}

/** What Node and the driver say when a connection ends; the driver's own errors have no code. */
function isConnectionFault(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  return (
    ('code' in error && typeof error.code === 'string' && /^E[A-Z]+$/.test(error.code)) ||
    /^(?:Connection terminated|Client has encountered a connection error|Client was closed|timeout)/.test(
      error.message,
    )
  )
}
