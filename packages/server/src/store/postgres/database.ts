/**
 * The connections to PostgreSQL: a bounded number of them, and transactions on one of them. Every wait has a bound. A
 * fault of the network, the primary or the disk fails the request with 503: nothing of it was acknowledged. Deadlocks
 * and serialization failures are tried again; any other error of a statement is a bug (faults.ts).
 */
import { hash } from 'node:crypto'
import pg from 'pg'
import { shuttingDown, unavailable } from '../../matrix-error.ts'
import type { ConnectionCounts } from '../../store.ts'
import { StoreError } from '../store-error.ts'
import { asOtherBackend, BACKEND, requireBackend } from './backends.ts'
import { asUnavailable, isSilence, isStalePlan, isTryAgain } from './faults.ts'
import { prepareConnection, STATEMENT_TIMEOUT_MS } from './prepare-connection.ts'

export type PostgresOptions = {
  /** `postgres://user@host:port/database` */
  readonly url: string
  /** Connections for requests. One more listens for notifications. */
  readonly connections: number
  /** The schema of the tables; `public` by default. */
  readonly schema?: string
  /** For commands that run long and that no client waits for: no timeouts. */
  readonly patient?: boolean
}

/** A row as the driver returns it: bigint as number, bytea as Buffer. */
export type Row = object

/** Statements, each on any connection, or all in one transaction (`Transaction`, `Snapshot`). */
export interface Queries {
  all<T extends Row>(sql: string, ...values: unknown[]): Promise<T[]>
  one<T extends Row>(sql: string, ...values: unknown[]): Promise<T | undefined>
  /** Returns the number of changed rows. */
  run(sql: string, ...values: unknown[]): Promise<number>
}

declare const inTransaction: unique symbol
declare const inSnapshot: unique symbol
/** Statements of one transaction, committed or rolled back together. Only `Connection.transaction` makes one. */
export type Transaction = Queries & { readonly [inTransaction]: true }
/** Statements that read the database at one instant. Only `Postgres.snapshot` makes one. */
export type Snapshot = Queries & { readonly [inSnapshot]: true }

/** Work of a transaction; `opened` has the results of the statements that it began with. */
export type TransactionWork<T> = (tx: Transaction, opened: readonly pg.QueryResult[]) => Promise<T>

/** Requests that may wait for a connection. Further ones are refused with 503. */
const MAX_WAITING = 2_000
const CONNECT_TIMEOUT_MS = 5_000
/** PostgreSQL ends a slow statement itself; on a silent network its answer never arrives. */
const SILENCE_MS = STATEMENT_TIMEOUT_MS + 2_000
/** After this long a transaction begins no further statement, because waits for several locks add up. */
const TRANSACTION_MS = 10_000
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
        // Between two statements only the pool handles errors, and only those of idle connections; the next statement
        // on this one fails.
        client.on('error', () => {})
        await prepareConnection(client, options)
        await onConnect(new Connection(client, options))
      },
    })
    // A failed idle connection is replaced when one is next needed; statements in progress fail by themselves.
    this.#pool.on('error', () => {})
  }

  /** The present use of the connections for requests. */
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
   * Runs `work` in a transaction; commits when it resolves, and rolls everything back when it rejects. Runs it again
   * after a deadlock or a serialization failure, so outside the transaction it must do only what can be done twice.
   *
   * @param opening the statements that it begins with, without parameters; `work` receives their results
   * @throws {MatrixError} 503 when the database cannot be reached or the outcome of the commit is unknown
   */
  transaction<T>(work: TransactionWork<T>, opening: Opening = {}): Promise<T> {
    return this.#attempt((connection) => connection.transaction(work, opening.begin?.()), opening.ended)
  }

  /**
   * Runs `work` on the database of one instant; it cannot write.
   *
   * @throws {MatrixError} 503 when the database cannot be reached
   */
  snapshot<T>(work: (snapshot: Snapshot) => Promise<T>): Promise<T> {
    return this.#attempt((connection) => connection.snapshot(work))
  }

  async #attempt<T>(run: (connection: Connection) => Promise<T>, ended?: Ended): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const client = await this.#connect()
      const connection = new Connection(client, this.#options)
      try {
        return await run(connection)
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
      throw unavailable('Too many requests are waiting for a database connection.')
    try {
      return await this.#pool.connect()
    } catch (error) {
      if (error instanceof StoreError) throw error
      const otherBackend = asOtherBackend(error)
      if (otherBackend !== undefined) throw otherBackend
      const failure = unavailable('The database cannot be reached; nothing of this request was stored.')
      failure.cause = error
      throw failure
    }
  }
}

/** Named, because a database or a role may have another default. */
export const BEGIN = 'begin isolation level read committed'
const BEGIN_SNAPSHOT = 'begin isolation level repeatable read read only'

/** The column of the last statement of an opening that names the session of the server (backends.ts). */
const WHICH_BACKEND = `; select ${BACKEND}`

/** Called at the end of each attempt; `broken`: the connection is lost, and the server may not have noticed. */
type Ended = (broken: boolean) => void

type Opening = {
  /** The statements that it begins with: the first is `BEGIN`, the last one returns `BACKEND` among its columns. */
  readonly begin?: () => string
  readonly ended?: Ended
}

export class Connection implements Queries {
  readonly #client: pg.ClientBase
  readonly #isPatient: boolean
  /** On the clock of `performance.now`: after it the transaction begins no further statement. */
  #endsAtMs = Number.POSITIVE_INFINITY
  /** Set when the connection cannot be used again. */
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

  /** Runs `work` in a transaction that begins with `begin` (`Opening`). */
  transaction<T>(work: TransactionWork<T>, begin = `${BEGIN}${WHICH_BACKEND}`): Promise<T> {
    return this.#within(begin, (queries, opened) => work(queries as Transaction, opened))
  }

  /** As `Postgres.snapshot`. */
  snapshot<T>(work: (snapshot: Snapshot) => Promise<T>): Promise<T> {
    return this.#within(`${BEGIN_SNAPSHOT}${WHICH_BACKEND}`, (queries) => work(queries as Snapshot))
  }

  async #within<T>(
    begin: string,
    work: (queries: Queries, opened: readonly pg.QueryResult[]) => Promise<T>,
  ): Promise<T> {
    if (!this.#isPatient) this.#endsAtMs = performance.now() + TRANSACTION_MS
    try {
      // Without parameters several statements go in one message, and their results come as a list.
      const found: pg.QueryResult | pg.QueryResult[] = await this.#query({ text: begin, types: TYPES })
      const opened = Array.isArray(found) ? found : [found]
      requireBackend(this.#client, opened.at(-1)?.rows[0])
      const queries: Queries = {
        all: (sql, ...values) => this.all(sql, ...values),
        one: (sql, ...values) => this.one(sql, ...values),
        run: (sql, ...values) => this.run(sql, ...values),
      }
      const result = await work(queries, opened)
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
   * A commit whose wait for a replica is cut short by a timeout succeeds with a warning, although a promoted replica
   * would not have it. Nothing else makes a commit warn.
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
    if (warning !== undefined) throw unavailable(`The database committed with a warning: ${warning}.`)
  }

  async #query<T extends Row>(query: pg.QueryConfig): Promise<pg.QueryResult<T>> {
    if (performance.now() > this.#endsAtMs)
      throw unavailable(
        'The database is too slow, or too many requests wait for the same rows; nothing of this request was stored.',
      )
    try {
      return await this.#client.query<T>(query)
    } catch (error) {
      // A late answer would be taken for that of the next statement.
      if (isSilence(error) || isStalePlan(error)) this.broken = error
      throw error
    }
  }
}

/**
 * A prepared statement, parsed and planned once for each connection, which saves half the cost of the short statements
 * of this store. A statement without parameters is sent unprepared.
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
