/**
 * The tables of an import: every table that both stores have, and the conversion of its rows for PostgreSQL. Handles
 * (`*_num`) are kept, because sync tokens and other rows refer to devices by them. Pools and their keys: key-log.ts.
 *
 * Not imported: `issue_log`, which is settled first; `writers`, whose counters belong to one database; `auth_sessions`,
 * which last a quarter of an hour; `wakes`, which only PostgreSQL has.
 */
import type { Value } from './fingerprint.ts'
import { issues, oneTimeKeys, pools } from './key-log.ts'
import type { Columns, ColumnType, TableCopy } from './table-copy-type.ts'

export const TABLE_COPIES: readonly TableCopy[] = [
  alike('users', {
    user_num: 'bigint',
    user_id: 'text',
    password_hash: 'text',
    created_ts: 'bigint',
    list_pos: 'bigint',
    deactivated_ts: 'bigint',
    keys_day_start_ts: 'bigint',
    keys_used: 'bigint',
    bytes_day_start_ts: 'bigint',
    bytes_used: 'bigint',
    locked_ts: 'bigint',
  }),
  alike('registration_tokens', {
    token_hash: 'text',
    uses_allowed: 'int',
    uses: 'int',
    expires_ts: 'bigint',
    created_ts: 'bigint',
  }),
  alike('devices', {
    device_num: 'bigint',
    user_num: 'bigint',
    device_id: 'text',
    display_name: 'text',
    created_ts: 'bigint',
    last_seen_ts: 'bigint',
    last_seen_ip: 'text',
    removed_ts: 'bigint',
    device_keys: 'text',
    ed25519: 'text',
    curve25519: 'text',
    identity_changed: 'boolean',
    version: 'bigint',
    generation: 'bigint',
    signal_pos: 'bigint',
    fence: 'bigint',
    day_start_ts: 'bigint',
    day_stored: 'int',
    heals_day_start_ts: 'bigint',
    heals_used: 'int',
  }),
  alike('former_identities', { device_num: 'bigint', ed25519: 'text', curve25519: 'text' }),
  alike('known_networks', { user_num: 'bigint', network_hash: 'text', seen_ts: 'bigint' }),
  alike('access_tokens', {
    token_hash: 'text',
    device_num: 'bigint',
    created_ts: 'bigint',
    expires_ts: 'bigint',
    refresh_hash: 'text',
    replaces_hash: 'text',
  }),
  pools,
  oneTimeKeys,
  issues,
  alike('former_fallback_keys', {
    pool_num: 'int',
    material: 'bytea',
    key_id: 'text',
    uploaded_ts: 'bigint',
    left_ts: 'bigint',
    state: 'smallint',
    issue_count: 'bigint',
    first_issued_ts: 'bigint',
  }),
  alike('fallback_issues', {
    pool_num: 'int',
    material: 'bytea',
    claimer_num: 'bigint',
    count: 'bigint',
    first_ts: 'bigint',
    last_ts: 'bigint',
  }),
  alike('claimers', { claimer_num: 'bigint', name: 'text', noted_ts: 'bigint' }),
  alike('conflicts', { device_num: 'bigint', materials: 'text', ts: 'bigint' }),
  alike('reset_answers', { device_num: 'bigint', request_id: 'text', ts: 'bigint', answer: 'text' }),
  alike('inbox', {
    device_num: 'bigint',
    pos: 'bigint',
    event: 'text',
    length: 'int',
    sender_num: 'bigint',
  }),
  alike('sent_transactions', { device_num: 'bigint', transaction_id: 'text', ts: 'bigint' }),
  alike('tracked_users', { observer_num: 'bigint', target_num: 'bigint', pos: 'bigint' }),
  alike('awaited_users', { awaited_num: 'bigint', user_id: 'text', observer_num: 'bigint' }),
  alike('cross_signing_keys', { user_num: 'bigint', usage: 'text', public_key: 'text', json: 'text' }),
  alike('key_signatures', {
    user_num: 'bigint',
    key_id: 'text',
    signer_num: 'bigint',
    signer_key_id: 'text',
    signature: 'text',
  }),
  alike('filters', { user_num: 'bigint', filter_id: 'bigint', json: 'text' }),
  alike('account_data', { user_num: 'bigint', type: 'text', content: 'text', pos: 'bigint' }),
  alike('former_epochs', { epoch: 'text', end_pos: 'bigint', ended_ts: 'bigint', reason: 'text' }),
]

type SourceRow = Readonly<Record<string, string | number | Uint8Array | null>>

/** A table that is alike in both stores. `change` computes the columns that differ or exist on one side only. */
function alike(
  table: string,
  columns: Columns,
  change: (row: SourceRow) => SourceRow = () => ({}),
): TableCopy {
  const entries = Object.entries(columns)
  return {
    table,
    columns,
    count: (source) => source.one<{ n: number }>(`select count(*) as n from ${table}`)?.n ?? 0,
    *rows(source) {
      for (const found of source.each<SourceRow>(`select * from ${table}`)) {
        const row = { ...found, ...change(found) }
        yield entries.map(([name, type]) => valueOf(row[name], type))
      }
    },
  }
}

function valueOf(value: SourceRow[string] | undefined, type: ColumnType): Value {
  if (value === undefined) throw new Error('the embedded database lacks a column that PostgreSQL has')
  return type === 'boolean' ? value === 1 : value
}
