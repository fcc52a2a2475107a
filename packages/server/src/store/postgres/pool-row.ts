/**
 * The row of a locked pool. Keys are available with state 0 and seq >= head, and issued with state 1, or state 0 and
 * seq < head. `changes` grows with every change of the pool. The column of the acknowledged count (pool/wake.ts) is
 * `told`.
 */
import type { Algorithm, KeyId, KeyMaterial } from '@latchkey/protocol'
import type { MaterialHash } from '../../pool/key.ts'
import type { LockedPoolNum } from './locks.ts'

export type PoolRow = {
  readonly pool_num: LockedPoolNum
  readonly algorithm: Algorithm
  readonly head: number
  readonly last_seq: number
  readonly count: number
  readonly filled: number
  readonly changes: number
  readonly acknowledged: number
  readonly fallback_key_id: KeyId | null
  readonly fallback_json: string | null
  readonly fallback_material: KeyMaterial | null
  readonly fallback_used: boolean
  readonly fallback_issue_count: number
  readonly fallback_first_issued_ts: number | null
  readonly fallback_uploaded_ts: number | null
}

export const POOL_COLUMNS = `pool_num, algorithm, head, last_seq, count, filled, changes, told as acknowledged,
  fallback_key_id, fallback_json, fallback_material, fallback_used, fallback_issue_count, fallback_first_issued_ts, fallback_uploaded_ts`

/** The row of a pool that this transaction has inserted. */
export function emptyPoolRow(poolNum: LockedPoolNum, algorithm: Algorithm): PoolRow {
  return {
    pool_num: poolNum,
    algorithm,
    head: 1,
    last_seq: 0,
    count: 0,
    filled: 0,
    changes: 0,
    acknowledged: 0,
    fallback_key_id: null,
    fallback_json: null,
    fallback_material: null,
    fallback_used: false,
    fallback_issue_count: 0,
    fallback_first_issued_ts: null,
    fallback_uploaded_ts: null,
  }
}

/** A hash as an element of a `bytea[]` parameter. */
export function bytesOf(hash: MaterialHash): string {
  return `\\x${hash}`
}
