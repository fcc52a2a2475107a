/**
 * The pools of a device in memory, and their loading from rows. They change in key-states.ts, except for acknowledged
 * counts and signals.
 */
import { type Algorithm, emptyDigest, type KeyId, type KeyMaterial } from '@latchkey/protocol'
import type { DeviceRef, Position, UserRef } from '../../session.ts'
import type { Reader } from './database.ts'
import { keyHash } from '../../pool/key.ts'
import { STATE_CODE } from '../key-row.ts'

/** A key that may be issued next. */
export type NextKey = { readonly num: number; readonly key_id: KeyId; readonly json: string }

/** An issue that is not settled. `keyNum` is null for a fallback key. */
export type Issue = {
  readonly n: number
  readonly keyNum: number | null
  /** The key's share of the digest; undefined for a fallback key. */
  readonly share: Uint8Array | undefined
  readonly ts: number
  readonly claimerNum: number
}

export type FallbackState = {
  readonly keyId: KeyId
  readonly material: KeyMaterial
  readonly json: string
  readonly keyHash: string
} & FallbackUse

export type FallbackUse = { used: boolean; issueCount: number; firstIssuedTs: number | null }

/** The sums of a pool that issues change. */
export type PoolSums = {
  count: number
  readonly digest: Uint8Array
  /** This pool's part of the device's version. */
  changes: number
}

export type PoolState = PoolSums & {
  readonly poolNum: number
  readonly algorithm: Algorithm
  /** The sums in the pool's row: without the issues that are not settled. */
  readonly settled: PoolSums & FallbackUse
  /** The acknowledged count (pool/wake.ts); the column is `told`. */
  acknowledged: number
  /** The available keys after the last upload. */
  readonly filled: number
  fallback: FallbackState | undefined
  /** The next keys in issue order, read ahead; `aheadFrom` is the first not yet issued. */
  ahead: readonly NextKey[]
  aheadFrom: number
  /** In upload order: all keys below this `num` have been read ahead. */
  readUpTo: number
  readonly unsettled: Issue[]
  /** Whether some unsettled issues were replayed from the log: their rows are not below `readUpTo`. */
  replayed: boolean
}

export type DeviceState = {
  readonly deviceRef: DeviceRef
  readonly userRef: UserRef
  readonly version: number
  readonly generation: number
  /** The fence under which its pools were last used (purge-stale-pools.ts). */
  readonly fence: number
  signalPos: Position
  readonly pools: ReadonlyMap<Algorithm, PoolState>
}

type PoolRow = {
  pool_num: number
  algorithm: Algorithm
  count: number
  digest: Uint8Array
  changes: number
  told: number
  filled: number
  fallback_key_id: KeyId | null
  fallback_json: string | null
  fallback_material: KeyMaterial | null
  fallback_used: number
  fallback_issue_count: number
  fallback_first_issued_ts: number | null
}

/** Keys per read-ahead: grows from few (a claim of one key) to many (a hot device). */
const MIN_AHEAD = 8
const MAX_AHEAD = 64

/** The device's pools in the state of their rows; undefined when the device does not exist. */
export function loadDevice(db: Reader, ref: DeviceRef): DeviceState | undefined {
  const device = db.one<{
    user_num: UserRef
    version: number
    generation: number
    fence: number
    signal_pos: Position
  }>(
    `select user_num, version, generation, fence, signal_pos from devices where device_num = ? and removed_ts is null`,
    ref,
  )
  if (device === undefined) return undefined
  const rows = db.all<PoolRow>(
    `select pool_num, algorithm, count, digest, changes, told, filled, fallback_key_id, fallback_json,
       fallback_material, fallback_used, fallback_issue_count, fallback_first_issued_ts
     from pools where device_num = ? order by algorithm`,
    ref,
  )
  return {
    deviceRef: ref,
    userRef: device.user_num,
    version: device.version,
    generation: device.generation,
    fence: device.fence,
    signalPos: device.signal_pos,
    pools: new Map(rows.map((row) => [row.algorithm, poolState(row)])),
  }
}

/**
 * The next keys of a pool, in claim order. Keys with unsettled issues are still `available` in their rows and are
 * skipped; in upload order `readUpTo` is past them, unless the issues were replayed from the log.
 */
export function readAhead(db: Reader, pool: PoolState, claimOrder: 'upload' | 'key_id'): readonly NextKey[] {
  const byKeyId = claimOrder === 'key_id'
  const issued = new Set(byKeyId || pool.replayed ? pool.unsettled.map((issue) => issue.keyNum) : [])
  if (byKeyId) return availableByKeyId(db, pool).filter((key) => !issued.has(key.num))
  for (;;) {
    const limit = Math.min(MAX_AHEAD, Math.max(MIN_AHEAD, pool.ahead.length * 2))
    const rows = db.all<NextKey>(
      `select num, key_id, json from one_time_keys
       where pool_num = ? and state = ${STATE_CODE.available} and num >= ? order by num limit ?`,
      pool.poolNum,
      pool.readUpTo,
      limit,
    )
    pool.readUpTo = (rows.at(-1)?.num ?? pool.readUpTo) + 1
    const keys = rows.filter((key) => !issued.has(key.num))
    if (keys.length > 0 || rows.length === 0) return keys
  }
}

/** All available keys of a pool by key ID. */
function availableByKeyId(db: Reader, pool: PoolState): NextKey[] {
  return db.all<NextKey>(
    `select num, key_id, json from one_time_keys
     where pool_num = ? and state = ${STATE_CODE.available} order by key_id`,
    pool.poolNum,
  )
}

function poolState(row: PoolRow): PoolState {
  const { count, digest, changes, filled } = row
  const state = newPoolState(row.pool_num, row.algorithm, {
    count,
    digest,
    changes,
    filled,
    fallback: fallbackOf(row),
  })
  return { ...state, acknowledged: row.told }
}

function fallbackOf(row: PoolRow): FallbackState | undefined {
  const { fallback_key_id: keyId, fallback_json: json, fallback_material: material } = row
  if (keyId === null || json === null || material === null) return undefined
  return {
    keyId,
    json,
    material,
    keyHash: keyHash(material),
    used: row.fallback_used === 1,
    issueCount: row.fallback_issue_count,
    firstIssuedTs: row.fallback_first_issued_ts,
  }
}

/** A pool without unsettled issues and without keys read ahead, whose count is acknowledged. */
export function newPoolState(
  poolNum: number,
  algorithm: Algorithm,
  {
    count,
    digest,
    changes,
    filled,
    fallback,
  }: Pick<PoolState, 'count' | 'digest' | 'changes' | 'filled' | 'fallback'> = {
    count: 0,
    filled: 0,
    digest: emptyDigest(),
    changes: 0,
    fallback: undefined,
  },
): PoolState {
  const { used = false, issueCount = 0, firstIssuedTs = null } = fallback ?? {}
  return {
    poolNum,
    algorithm,
    count,
    digest,
    changes,
    settled: { count, digest: Uint8Array.from(digest), changes, used, issueCount, firstIssuedTs },
    acknowledged: count,
    filled,
    fallback,
    ahead: [],
    aheadFrom: 0,
    readUpTo: 0,
    unsettled: [],
    replayed: false,
  }
}
