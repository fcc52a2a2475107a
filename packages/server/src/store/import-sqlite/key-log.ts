/**
 * Pools and their keys. The embedded store numbers keys across all pools (`num`), PostgreSQL within each (`seq`): the
 * order in a pool is the same, counted from 1. `head` is the first available key, so that no earlier key counts as
 * available; issued keys have their own state, because claims by key ID follow no order. The claimers of keys are
 * copied to `issues`.
 */
import { STATE_CODE } from '../key-row.ts'
import type { Database } from '../sqlite/database.ts'
import type { TableCopy } from './table-copy-type.ts'

type PoolRow = {
  readonly pool_num: number
  readonly device_num: number
  readonly algorithm: string
  readonly head: number
  readonly last_seq: number
  readonly first_seq: number
  readonly count: number
  readonly changes: number
  readonly told: number
  readonly filled: number
  readonly fallback_key_id: string | null
  readonly fallback_json: string | null
  readonly fallback_material: string | null
  readonly fallback_used: number
  readonly fallback_issue_count: number
  readonly fallback_first_issued_ts: number | null
  readonly fallback_uploaded_ts: number | null
}

/** `seq` is the number of keys up to a `num`. The head of a pool without an available key is after its last key. */
const POOLS = `
  select pool_num, device_num, algorithm, count, changes, told, filled, fallback_key_id, fallback_json, fallback_material,
    fallback_used, fallback_issue_count, fallback_first_issued_ts, fallback_uploaded_ts,
    (select count(*) from one_time_keys as k where k.pool_num = pools.pool_num) as last_seq,
    1 + (select count(*) from one_time_keys as k where k.pool_num = pools.pool_num and k.num < pools.first_num) as first_seq,
    1 + (select count(*) from one_time_keys as k where k.pool_num = pools.pool_num and k.num < coalesce(
      (select min(num) from one_time_keys as a
       where a.pool_num = pools.pool_num and a.state = ${STATE_CODE.available}), ${Number.MAX_SAFE_INTEGER})) as head
  from pools`

export const pools: TableCopy = {
  table: 'pools',
  columns: {
    pool_num: 'int',
    device_num: 'bigint',
    algorithm: 'text',
    head: 'bigint',
    last_seq: 'bigint',
    first_seq: 'bigint',
    count: 'int',
    changes: 'bigint',
    told: 'int',
    filled: 'int',
    fallback_key_id: 'text',
    fallback_json: 'text',
    fallback_material: 'text',
    fallback_used: 'boolean',
    fallback_issue_count: 'bigint',
    fallback_first_issued_ts: 'bigint',
    fallback_uploaded_ts: 'bigint',
  },
  count: (source) => countOf(source, `select count(*) as n from pools`),
  *rows(source) {
    for (const row of source.each<PoolRow>(POOLS)) {
      yield [
        row.pool_num,
        row.device_num,
        row.algorithm,
        row.head,
        row.last_seq,
        row.first_seq,
        row.count,
        row.changes,
        row.told,
        row.filled,
        row.fallback_key_id,
        row.fallback_json,
        row.fallback_material,
        row.fallback_used === 1,
        row.fallback_issue_count,
        row.fallback_first_issued_ts,
        row.fallback_uploaded_ts,
      ]
    }
  },
}

type KeyRow = {
  readonly pool_num: number
  readonly uploaded_ts: number
  readonly state: number
  readonly key_id: string
  readonly material: Uint8Array
  readonly json: string | null
  readonly left_ts: number | null
}

export const oneTimeKeys: TableCopy = {
  table: 'one_time_keys',
  columns: {
    pool_num: 'int',
    seq: 'int',
    uploaded_ts: 'bigint',
    state: 'smallint',
    key_id: 'text',
    material: 'bytea',
    json: 'text',
    left_ts: 'bigint',
  },
  count: (source) => countOf(source, `select count(*) as n from one_time_keys`),
  *rows(source) {
    const place = countPlaces()
    const sql = `select pool_num, uploaded_ts, state, key_id, material, json, left_ts from one_time_keys order by num`
    for (const key of source.each<KeyRow>(sql)) {
      const { pool_num: pool, left_ts: leftTs } = key
      yield [
        pool,
        place(pool),
        key.uploaded_ts,
        key.state,
        key.key_id,
        key.material,
        key.json,
        // For an issued key it is also in `issues`, until the end of its retention.
        leftTs,
      ]
    }
  },
}

type IssueRow = {
  readonly pool_num: number
  readonly left_ts: number | null
  readonly claimer_num: number | null
}

/** Issues whose details are within their retention. */
export const issues: TableCopy = {
  table: 'issues',
  columns: { pool_num: 'int', seq: 'int', ts: 'bigint', claimer_num: 'bigint' },
  count: (source) =>
    countOf(
      source,
      `select count(*) as n from one_time_keys where left_ts is not null and claimer_num is not null`,
    ),
  *rows(source) {
    const place = countPlaces()
    const sql = `select pool_num, left_ts, claimer_num from one_time_keys order by num`
    for (const { pool_num: pool, left_ts: ts, claimer_num: claimer } of source.each<IssueRow>(sql)) {
      const seq = place(pool)
      if (ts !== null && claimer !== null) yield [pool, seq, ts, claimer]
    }
  },
}

/** Numbers the keys of each pool in the order of the calls. About 50 bytes of memory per pool. */
function countPlaces(): (pool: number) => number {
  const last = new Map<number, number>()
  return (pool) => {
    const seq = (last.get(pool) ?? 0) + 1
    last.set(pool, seq)
    return seq
  }
}

function countOf(source: Database, sql: string): number {
  return source.one<{ n: number }>(sql)?.n ?? 0
}
