/**
 * Pool digests, computed from the available keys on demand. They are cached by (pool, changes) within one epoch:
 * `changes` grows with every change of a pool, so an entry is never wrong, only out of use. Only committed digests are
 * cached, because a rolled-back change returns its number.
 */
import { type Algorithm, emptyDigest, type KeyId, mixIn } from '@latchkey/protocol'
import { LRUCache } from 'lru-cache'
import { materialOfJson, shareOf } from '../../pool/key.ts'
import { STATE_CODE } from '../key-row.ts'
import type { Queries, Snapshot, Transaction } from './database.ts'
import type { PoolRow } from './pool-row.ts'

/** About 200 bytes each. */
const MAX_KEPT = 100_000

/** A pool at one moment. */
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

  /** The digest in base64url; undefined when it must be read. */
  get(epoch: string, pool: DigestedPool): string | undefined {
    if (pool.count === 0) return EMPTY
    const kept = this.#byPool.get(pool.pool_num)
    return kept?.epoch === epoch && kept.changes === pool.changes ? kept.digest : undefined
  }

  /** The database may have been replaced by an older copy (fence.ts). */
  forgetAll(): void {
    this.#byPool.clear()
  }

  /** Caches the digest of a committed change. */
  keep(epoch: string, { pool_num: num, changes }: DigestedPool, digest: string): void {
    const kept = this.#byPool.get(num)
    if (kept?.epoch === epoch && kept.changes > changes) return
    this.#byPool.set(num, { epoch, changes, digest })
  }
}

const EMPTY = textOf(emptyDigest())

/** The digests of pools that were read in the same snapshot, from the cache or from the keys. */
export function snapshotDigests(
  cache: DigestCache,
  snapshot: Snapshot,
  epoch: string,
  pools: readonly DigestedPool[],
): Promise<ReadonlyMap<number, string>> {
  return digestsOf(cache, snapshot, epoch, pools)
}

/** The digests of locked pools, from the cache or from the keys. */
export function lockedDigests(
  cache: DigestCache,
  tx: Transaction,
  epoch: string,
  pools: readonly PoolRow[],
): Promise<ReadonlyMap<number, string>> {
  return digestsOf(cache, tx, epoch, pools)
}

async function digestsOf(
  cache: DigestCache,
  db: Queries,
  epoch: string,
  pools: readonly DigestedPool[],
): Promise<ReadonlyMap<number, string>> {
  const digests = new Map(pools.map((pool) => [pool.pool_num, cache.get(epoch, pool)]))
  const read = await readDigests(
    db,
    pools.filter((pool) => digests.get(pool.pool_num) === undefined),
  )
  return new Map([...digests].map(([num, digest]) => [num, digest ?? read.get(num) ?? EMPTY]))
}

async function readDigests(db: Queries, pools: readonly DigestedPool[]): Promise<Map<number, string>> {
  if (pools.length === 0) return new Map()
  const rows = await db.all<{ pool_num: number; key_id: KeyId; json: string }>(
    `select pool_num, key_id, json from pools join one_time_keys using (pool_num)
     where pool_num = any($1::bigint[]) and seq >= head and state = ${STATE_CODE.available}`,
    pools.map((pool) => pool.pool_num),
  )
  const keys = Map.groupBy(rows, (row) => row.pool_num)
  return new Map(
    pools.map((pool) => [pool.pool_num, digestOf(pool.algorithm, keys.get(pool.pool_num) ?? [])]),
  )
}

function digestOf(
  algorithm: Algorithm,
  keys: readonly { readonly key_id: KeyId; readonly json: string }[],
): string {
  const digest = emptyDigest()
  for (const { key_id: keyId, json } of keys) mixIn(digest, shareOf(algorithm, keyId, materialOfJson(json)))
  return textOf(digest)
}

function textOf(digest: Uint8Array): string {
  return Buffer.from(digest).toString('base64url')
}
