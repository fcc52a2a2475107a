/**
 * The starts of the database server, and which processes have verified them (fence/verification.ts). A start is the
 * time at which the server began, as an identity, and the file of the table `stream`: a database that is restored into
 * a running server has another file. A database that processes left for another one, and return to, begins a new start
 * as well: it lacks all writes of the other.
 */
import type { Queries } from './database.ts'

const FIRST_START = `extract(epoch from pg_postmaster_start_time())::text || ' ' || pg_relation_filepath('stream')`
const RETURN = `${FIRST_START} || ' return '`

/** The present start, as text; a column of `stream`. */
export const SERVER_START = `case when starts_with(server_start, ${RETURN}) then server_start else ${FIRST_START} end`

/** The time of the database, in milliseconds since 1970. No process's own clock is stored with a write. */
export const DATABASE_NOW = `(extract(epoch from clock_timestamp()) * 1000)::bigint`

/** Notes a new start, and the state of the database before anything is written after it. */
export async function noteStart(db: Queries, start: string): Promise<void> {
  await db.run(
    `update stream set server_start = $1, server_start_pos = pos,
       server_start_written_ts = (select max(ts) from writers where ts > 0)
     where server_start is distinct from $1`,
    start,
  )
}

/** For a process that comes from another start: begins a new one if it has verified this one before. */
export async function noteReturn(db: Queries, writerId: string, start: string): Promise<void> {
  await db.run(
    `update stream set server_start = ${RETURN} || gen_random_uuid(), server_start_pos = pos,
       server_start_written_ts = (select max(ts) from writers where ts > 0)
     where server_start = $2 and exists (select 1 from looks where writer_id = $1 and looks.server_start = $2)`,
    writerId,
    start,
  )
}

/** Notes that a process has verified a start, and raised the fence if needed. */
export async function noteVerified(db: Queries, writerId: string, start: string): Promise<void> {
  await db.run(
    `insert into looks (writer_id, server_start) values ($1, $2)
     on conflict (writer_id) do update set server_start = excluded.server_start, absent = false
     where looks.server_start <> excluded.server_start or looks.absent`,
    writerId,
    start,
  )
}

export type Verified = {
  readonly start: string
  /** Whether keys may be issued. */
  readonly verified: boolean
  /** Whether a process that writes has not verified the start yet. */
  readonly waits: boolean
}

export async function verifiedStart(db: Queries): Promise<Verified> {
  const row = await db.one<Verified>(
    `select server_start as start, server_start_verified is not distinct from server_start as verified, exists (
       select 1 from writers where not exists (
         select 1 from looks where looks.writer_id = writers.writer_id
           and (looks.server_start = stream.server_start or looks.absent))) as waits
     from stream`,
  )
  if (row === undefined) throw new Error('the stream has no row')
  return row
}

/** Ends the wait for all processes. Those that have not verified the start are not waited for at the next one. */
export async function endWait(db: Queries, start: string): Promise<void> {
  await db.run(
    `with ended as (
       update stream set server_start_verified = $1
       where server_start = $1 and server_start_verified is distinct from $1 returning 1)
     insert into looks (writer_id, server_start, absent)
       select distinct writer_id, '', true from writers, ended
       where not exists (select 1 from looks where looks.writer_id = writers.writer_id and server_start = $1)
     on conflict (writer_id) do update set absent = true where looks.server_start <> $1`,
    start,
  )
}
