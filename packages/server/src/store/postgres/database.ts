/**
 * The connections to PostgreSQL, and the only way to write: a transaction on one of a bounded number of connections.
 * Every wait has a bound, and whatever the network, the primary or the disk does to a request ends as 503: nothing of it
 * was acknowledged. Deadlocks and serialization failures are tried again; any other error of a statement is a bug.
 */
import { hash } from 'node:crypto'
import pg from 'pg'
import { MatrixError, shuttingDown, unavailable } from '../../matrix-error.ts'
import type { ConnectionCounts } from '../../store.ts'
import { StoreError } from '../store-error.ts'

export type PostgresOptions = {
  /** `postgres://user@host:port/database` */
  readonly url: string
  /** Connections for requests. Another one listens. */
  readonly connections: number
  /** The schema of the tables; `public` where nothing is said. */
  readonly schema?: string
  /** For commands that take their time, and that no client waits for: nothing is given up because it takes long. */
  readonly patient?: boolean
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
const STATEMENT_TIMEOUT_MS = 10_000
const LOCK_TIMEOUT_MS = 5_000
/** PostgreSQL ends a statement by itself; a network that has fallen silent brings no word of it. */
const SILENCE_MS = STATEMENT_TIMEOUT_MS + 2_000
/** A transaction that has lasted so long begins no further statement: waits for several locks add up. */
const TRANSACTION_MS = 10_000
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
    onConnect: (connection: Connection) => Promise<void> = async () => {},
  ) {
    this.#options = options
    this.#pool = new pg.Pool({
      ...connectionConfig(options),
      max: options.connections,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      // oxlint-disable-next-line typescript/no-misused-promises -- the pool waits for it, which its types leave out
      onConnect: async (client) => {
        // Between two statements nobody listens but the pool, and to idle connections only; the next statement says it.
        client.on('error', () => {})
        await prepareConnection(client, options)
        await onConnect(new Connection(client, options))
      },
    })
    // A connection that fails while idle is replaced when it is next needed; requests in flight hear of it themselves.
    this.#pool.on('error', () => {})
  }

  /** What the connections for requests do now. */
  get counts(): ConnectionCounts {
    const { idleCount: idle, totalCount, waitingCount: waiting } = this.#pool
    return { idle, busy: totalCount - idle, waiting }
  }

  /** A connection of its own, for LISTEN. The caller connects and ends it. */
  newClient(): pg.Client {
    return new pg.Client({ ...connectionConfig(this.#options), connectionTimeoutMillis: CONNECT_TIMEOUT_MS })
  }

  all<T extends Row>(sql: string, ...values: unknown[]): Promise<T[]> {
    return this.withConnection((connection) => connection.all<T>(sql, ...values))
  }

  one<T extends Row>(sql: string, ...values: unknown[]): Promise<T | undefined> {
    return this.withConnection((connection) => connection.one<T>(sql, ...values))
  }

  run(sql: string, ...values: unknown[]): Promise<number> {
    return this.withConnection((connection) => connection.run(sql, ...values))
  }

  /**
   * Runs `work` in a transaction; commits when it resolves, and undoes everything when it rejects. Runs it again after
   * a deadlock or a serialization failure, so it must do nothing outside the transaction that cannot be done twice.
   *
   * @param opening what it begins with: statements without parameters, whose results `work` is given
   * @throws {MatrixError} 503 when the database cannot be reached or the outcome of the commit is unknown
   */
  async transaction<T>(
    work: (connection: Connection, opened: readonly pg.QueryResult[]) => Promise<T>,
    opening: 'write' | 'snapshot' | { readonly begin: () => string; readonly ended?: Ended } = 'write',
  ): Promise<T> {
    const { begin, ended } =
      typeof opening === 'string' ? { begin: () => BEGIN[opening], ended: undefined } : opening
    for (let attempt = 1; ; attempt++) {
      const client = await this.#connect()
      const connection = new Connection(client, this.#options)
      try {
        return await connection.transaction(work, begin())
      } catch (error) {
        if (!isTryAgain(error) || attempt === MAX_ATTEMPTS) throw asUnavailable(error)
      } finally {
        client.release(connection.broken)
        ended?.(connection.broken !== undefined)
      }
    }
  }

  /** Runs `work` on one connection. @throws {MatrixError} 503 */
  async withConnection<T>(work: (connection: Connection) => Promise<T>): Promise<T> {
    const client = await this.#connect()
    const connection = new Connection(client, this.#options)
    try {
      return await work(connection)
    } catch (error) {
      throw asUnavailable(error)
    } finally {
      client.release(connection.broken)
    }
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#pool.end())
  }

  async #connect(): Promise<pg.PoolClient> {
    if (this.#closing !== undefined) throw shuttingDown()
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

/** What a transaction begins with. A snapshot shows one instant, and nothing is written in it. */
const BEGIN = { write: 'begin', snapshot: 'begin isolation level repeatable read read only' } as const

/** Called at the end of each attempt; `broken`: the connection is lost, and the server may not have noticed. */
type Ended = (broken: boolean) => void

/** One connection. */
export class Connection implements Queries {
  readonly #client: pg.ClientBase
  readonly #isPatient: boolean
  /** On the clock of `performance.now`: when the transaction begins no further statement. */
  #endsAtMs = Number.POSITIVE_INFINITY
  /** Set when it cannot be used again. */
  broken: Error | undefined

  constructor(client: pg.ClientBase, { patient = false }: Pick<PostgresOptions, 'patient'>) {
    this.#client = client
    this.#isPatient = patient
  }

  async all<T extends Row>(sql: string, ...values: unknown[]): Promise<T[]> {
    return (await this.#query<T>(statement(sql, values))).rows
  }

  async one<T extends Row>(sql: string, ...values: unknown[]): Promise<T | undefined> {
    return (await this.all<T>(sql, ...values))[0]
  }

  async run(sql: string, ...values: unknown[]): Promise<number> {
    return (await this.#query(statement(sql, values))).rowCount ?? 0
  }

  /** Runs `work` in a transaction that begins with `begin` (`Postgres.transaction`). */
  async transaction<T>(
    work: (connection: Connection, opened: readonly pg.QueryResult[]) => Promise<T>,
    begin: string = BEGIN.write,
  ): Promise<T> {
    if (!this.#isPatient) this.#endsAtMs = performance.now() + TRANSACTION_MS
    try {
      // Without parameters several statements go in one message, and their results come as a list.
      const opened: pg.QueryResult | pg.QueryResult[] = await this.#query({ text: begin, types: TYPES })
      const result = await work(this, Array.isArray(opened) ? opened : [opened])
      await this.#commit()
      return result
    } catch (error) {
      if (this.broken === undefined)
        await this.#client.query('rollback').catch((failure: Error) => (this.broken = failure))
      throw error
    } finally {
      this.#endsAtMs = Number.POSITIVE_INFINITY
    }
  }

  /**
   * A commit that waits for a replica and is cut short by a time-out succeeds with a warning, although a replica that is
   * promoted would not have it. Nothing else makes a commit warn.
   */
  async #commit(): Promise<void> {
    let warning: string | undefined
    const onNotice = ({
      code,
      message,
    }: {
      readonly code?: string | undefined
      readonly message?: string | undefined
    }): void => {
      if (code?.startsWith('01') === true) warning = message
    }
    this.#client.on('notice', onNotice)
    await this.#query({ text: 'commit' }).finally(() => this.#client.off('notice', onNotice))
    if (warning !== undefined) throw unavailable(`The database could not commit as it should: ${warning}.`)
  }

  async #query<T extends Row>(query: pg.QueryConfig): Promise<pg.QueryResult<T>> {
    if (performance.now() > this.#endsAtMs)
      throw unavailable(
        'The database is too slow, or too much waits for the same rows; nothing of this request was stored.',
      )
    try {
      return await this.#client.query<T>(query)
    } catch (error) {
      // The answer may still come, and would be taken for that of the next statement.
      if (isSilence(error) || isStalePlan(error)) this.broken = error
      throw error
    }
  }
}

/**
 * Parsed and planned once for each connection: for the short statements of this store that is half of what they cost. A
 * statement without parameters goes as it stands.
 */
function statement(
  sql: string,
  values: unknown[],
): pg.QueryConfig & { readonly types: pg.CustomTypesConfig } {
  if (values.length === 0) return { text: sql, types: TYPES }
  return { name: hash('sha1', sql, 'base64url'), text: sql, values, types: TYPES }
}

function connectionConfig({ url, patient }: PostgresOptions): pg.ClientConfig {
  return {
    connectionString: url,
    application_name: 'latchkey',
    keepAlive: true,
    ...(patient !== true && { query_timeout: SILENCE_MS }),
  }
}

/**
 * Set by statements, because poolers refuse start-up options. `synchronous_commit` is only ever made stronger: a cluster
 * that is set to lose commits must not weaken "durable", and one that waits for its replicas keeps doing so.
 *
 * Requests look everything up by its key, whatever the values: their statements are planned once. A plan that is kept must
 * not scan a table because it is small when the plan is made. Where there is no index, a plan without scans seems so dear
 * that it would be compiled each time.
 */
async function prepareConnection(
  client: pg.ClientBase,
  { schema, patient = false }: PostgresOptions,
): Promise<void> {
  await client.query({
    text: `select set_config('lock_timeout', $1, false), set_config('statement_timeout', $2, false),
      set_config('idle_in_transaction_session_timeout', $3, false),
      set_config('search_path', coalesce($4, current_setting('search_path')), false),
      set_config('plan_cache_mode', $5, false), set_config('enable_seqscan', $6, false), set_config('jit', $6, false),
      set_config('synchronous_commit', case when current_setting('synchronous_commit') in ('off', 'local')
        then 'on' else current_setting('synchronous_commit') end, false)`,
    values: [
      `${LOCK_TIMEOUT_MS}`,
      `${patient ? 0 : STATEMENT_TIMEOUT_MS}`,
      `${patient ? 0 : IDLE_IN_TRANSACTION_MS}`,
      schema ?? null,
      patient ? 'auto' : 'force_generic_plan',
      patient ? 'on' : 'off',
    ],
  })
}

/** Deadlock, serialization failure. */
function isTryAgain(error: unknown): boolean {
  return error instanceof pg.DatabaseError && (error.code === '40P01' || error.code === '40001')
}

/**
 * Faults of the connection, the primary or its disk: classes 08 (connection), 53 (out of memory, disk, connections),
 * 57 (shut down, cancelled by a time-out), 55P03 (waited too long for a lock), 25006 (this is a standby), 0A000 (`isStalePlan`), 58 and XX (its
 * files), 40 (given up after trying again). A statement that is wrong is a bug and stays one.
 */
const FAULTS = /^(?:08|53|57|58|XX|40)|^(?:55P03|25006|0A000)$/

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
    /^(?:Connection terminated|Query read timeout|Client has encountered a connection error|Client was closed|timeout)/.test(
      error.message,
    )
  )
}

/** A statement was planned on this connection before a migration changed what it returns. */
function isStalePlan(error: unknown): error is Error {
  return error instanceof pg.DatabaseError && error.code === '0A000'
}

/** The driver's word for a statement that had no answer in time. */
function isSilence(error: unknown): error is Error {
  return error instanceof Error && error.message === 'Query read timeout'
}
