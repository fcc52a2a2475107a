/**
 * Pool digests, computed from the available keys when they are asked for. Kept by (pool, changes) within one epoch:
 * `changes` grows with every change of a pool, so what is kept is never wrong, only no longer asked for. Nothing enters
 * that a transaction has not committed: an undone change gives its number back.
 */
import {
  type Algorithm,
  digestShare,
  emptyDigest,
  type KeyId,
  type KeyMaterial,
  mixIn,
} from '@latchkey/protocol'
import { LRUCache } from 'lru-cache'
import { materialOfJson, sha256, STATE_CODE } from '../key-row.ts'
import type { Queries } from './database.ts'

/** About 200 bytes each. */
const MAX_KEPT = 100_000

/** A pool as it stands: what its digest is of. */
export type DigestedPool = {
  readonly pool_num: number
  readonly algorithm: Algorithm
  readonly count: number
  readonly changes: number
}

export class DigestCache {
  readonly #byPool = new LRUCache<
    number,
    { readonly epoch: string; readonly changes: number; readonly digest: string }
  >({ max: MAX_KEPT })

  /** base64url; undefined when it has to be read. */
  get(epoch: string, pool: DigestedPool): string | undefined {
    if (pool.count === 0) return EMPTY
    const kept = this.#byPool.get(pool.pool_num)
    return kept?.epoch === epoch && kept.changes === pool.changes ? kept.digest : undefined
  }

  /** The database may be another than what is remembered of it (fence.ts). */
  forgetAll(): void {
    this.#byPool.clear()
  }

  /** Keeps the digest of a pool as it was committed. */
  keep(epoch: string, { pool_num: num, changes }: DigestedPool, digest: string): void {
    const kept = this.#byPool.get(num)
    if (kept?.epoch === epoch && kept.changes > changes) return
    this.#byPool.set(num, { epoch, changes, digest })
  }
}

const EMPTY = textOf(emptyDigest())

export type DigestedKey = {
  readonly key_id: KeyId
  readonly json: string
  /** Where it is known: to take it from the text costs most of a digest. */
  readonly material?: KeyMaterial
}

/** The digest of these keys, base64url; or what becomes of a digest when they come or go. */
export function digestOf(algorithm: Algorithm, keys: readonly DigestedKey[], before?: string): string {
  const digest = before === undefined ? emptyDigest() : Buffer.from(before, 'base64url')
  for (const { key_id: keyId, json, material = materialOfJson(json) } of keys) {
    mixIn(digest, digestShare(sha256, algorithm, keyId, material))
  }
  return textOf(digest)
}

/** Reads digests, by pool. In the snapshot, or under the lock, in which the pools themselves were read. */
export async function readDigests(tx: Queries, pools: readonly DigestedPool[]): Promise<Map<number, string>> {
  if (pools.length === 0) return new Map()
  const rows = await tx.all<{ pool_num: number; key_id: KeyId; json: string }>(
    `select pool_num, key_id, json from pools join one_time_keys using (pool_num)
     where pool_num = any($1::bigint[]) and seq >= head and state = ${STATE_CODE.available}`,
    pools.map((pool) => pool.pool_num),
  )
  const keys = Map.groupBy(rows, (row) => row.pool_num)
  return new Map(
    pools.map((pool) => [pool.pool_num, digestOf(pool.algorithm, keys.get(pool.pool_num) ?? [])]),
  )
}

function textOf(digest: Uint8Array): string {
  return Buffer.from(digest).toString('base64url')
}
