/** The settings of a session of PostgreSQL, and its identity (backends.ts). */
import type pg from 'pg'
import { BACKEND, noteBackend } from './backends.ts'

export const STATEMENT_TIMEOUT_MS = 10_000
const LOCK_TIMEOUT_MS = 5_000
/** A transaction whose process hangs or lost its network must not hold its locks without limit. */
const IDLE_IN_TRANSACTION_MS = 15_000

/**
 * Settings of a connection, made by a statement because poolers refuse start-up options. `synchronous_commit` is only
 * made stronger: a cluster that is set to lose commits must not weaken "durable", and one that waits for its replicas
 * keeps doing so.
 *
 * Requests find all rows by key, regardless of the values, so their statements are planned once. A cached plan must not
 * scan a table because the table was small at planning time (`enable_seqscan`). A statement without an index then looks
 * so expensive that PostgreSQL would compile it each time (`jit`).
 */
export async function prepareConnection(
  client: pg.ClientBase,
  { schema, patient = false }: { readonly schema?: string; readonly patient?: boolean },
): Promise<void> {
  const { rows } = await client.query<{ backend: number }>({
    text: `select ${BACKEND}, set_config('lock_timeout', $1, false), set_config('statement_timeout', $2, false),
      set_config('idle_in_transaction_session_timeout', $3, false),
      set_config('search_path', coalesce($4, current_setting('search_path')), false),
      set_config('default_transaction_isolation', 'read committed', false),
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
  noteBackend(client, rows[0])
}
