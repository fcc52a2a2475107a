/**
 * The session of the server behind a connection. Settings, prepared statements and LISTEN belong to a session, and a
 * pooler in transaction mode gives each transaction another one (issue 11, C6). Each transaction therefore compares the
 * process ID of its session with that at the connect, in a message that it sends anyway.
 */
import pg from 'pg'
import { MatrixError } from '../../matrix-error.ts'

/** A column for `requireBackend`. */
export const BACKEND = 'pg_backend_pid() as backend'

type Row = { readonly backend: number }

const backends = new WeakMap<pg.ClientBase, number>()

/** Notes the session of a new connection. */
export function noteBackend(client: pg.ClientBase, row: Row | undefined): void {
  if (row !== undefined) backends.set(client, row.backend)
}

/** @throws {OtherBackendError} when the connection has another session now; the caller rolls back. */
export function requireBackend(client: pg.ClientBase, row: Row | undefined): void {
  if (row?.backend !== backends.get(client)) throw new OtherBackendError()
}

/** 503: a pooler gave the connection another session. */
export class OtherBackendError extends MatrixError {
  constructor(cause?: unknown) {
    super(
      503,
      'M_UNKNOWN',
      'The connection to the database changed its session: a pooler in transaction mode is in between. ' +
        'Set it to session mode (pgbouncer: pool_mode = session), or connect to PostgreSQL directly.',
      { retry_after_ms: 1000 },
    )
    if (cause !== undefined) this.cause = cause
  }
}

/** As this error, if a prepared statement is missing or exists already: another session prepared it. */
export function asOtherBackend(error: unknown): OtherBackendError | undefined {
  if (error instanceof OtherBackendError) return error
  const isOfOther = error instanceof pg.DatabaseError && (error.code === '26000' || error.code === '42P05')
  return isOfOther ? new OtherBackendError(error) : undefined
}
