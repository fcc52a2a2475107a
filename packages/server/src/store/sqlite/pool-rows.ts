/**
 * The rows of a device's pools, for every operation but claims: always after `keys.settle`, always in a transaction.
 */
import { emptyDigest, mixIn, type Algorithm, type KeyId, type KeyMaterial } from '@latchkey/protocol'
import type { UploadedKey } from '../../pool/port.ts'
import type { PoolMemory } from '../../pool/upload.ts'
import type { DeviceRef } from '../../session.ts'
import type { Core } from './core.ts'
import { materialHash, materialOfJson, shareOf, stateOf, STATE_CODE } from '../key-row.ts'

export type PoolRow = {
  readonly pool_num: number
  readonly algorithm: Algorithm
  readonly count: number
  readonly digest: Uint8Array
  readonly fallback_key_id: KeyId | null
  readonly fallback_material: KeyMaterial | null
}

/** What needs the tables alone. */
type Rows = Pick<Core, 'db'>

const POOL_COLUMNS = 'pool_num, algorithm, count, digest, fallback_key_id, fallback_material'

export function poolsOf(core: Rows, device: DeviceRef): PoolRow[] {
  return core.db.all<PoolRow>(
    `select ${POOL_COLUMNS} from pools where device_num = ? order by algorithm`,
    device,
  )
}

export function poolOf(core: Core, device: DeviceRef, algorithm: Algorithm): PoolRow | undefined {
  return core.db.one<PoolRow>(
    `select ${POOL_COLUMNS} from pools where device_num = ? and algorithm = ?`,
    device,
    algorithm,
  )
}

/** A row of an available key. */
export type AvailableRow = { readonly num: number; readonly key_id: KeyId; readonly json: string }

/** How many keys of a pool are available now. */
export function countOf(core: Core, pool: PoolRow): number {
  return (
    core.db.one<{ count: number }>(`select count from pools where pool_num = ?`, pool.pool_num)?.count ?? 0
  )
}

/** The available keys of a pool, in upload order. */
export function availableKeys(core: Core, pool: PoolRow, limit = -1): AvailableRow[] {
  return core.db.all<AvailableRow>(
    `select num, key_id, json from one_time_keys
     where pool_num = ? and state = ${STATE_CODE.available} order by num limit ?`,
    pool.pool_num,
    limit,
  )
}

/** `+state` keeps SQLite from the index by state, with which it would look at every key of the pool. */
export function availableById(core: Core, pool: PoolRow, keyId: KeyId): AvailableRow | undefined {
  return core.db.one<AvailableRow>(
    `select num, key_id, json from one_time_keys
     where pool_num = ? and key_id = ? and +state = ${STATE_CODE.available}`,
    pool.pool_num,
    keyId,
  )
}

/** What the upload rule asks of a pool. */
export function memoryOf(core: Core, pool: PoolRow): PoolMemory {
  return {
    byMaterial(material) {
      const row = core.db.one<{ state: number; key_id: KeyId }>(
        `select state, key_id from one_time_keys
         where pool_num = ? and material = ? and state <> ${STATE_CODE.withdrawn} limit 1`,
        pool.pool_num,
        materialHash(material),
      )
      if (row === undefined) return undefined
      const state = stateOf(row.state)
      return state === 'withdrawn' ? undefined : { state, keyId: row.key_id }
    },
    availableById(keyId) {
      const row = availableById(core, pool, keyId)
      return row && { material: materialOfJson(row.json), json: row.json }
    },
    issuedUnder(keyId) {
      return (
        core.db.one(
          `select 1 from one_time_keys where pool_num = ? and key_id = ? and +state = ${STATE_CODE.issued} limit 1`,
          pool.pool_num,
          keyId,
        ) !== undefined
      )
    },
  }
}

/** Appends keys to a pool's log, in their order. */
export function appendKeys(core: Core, pool: PoolRow, keys: readonly UploadedKey[], now: number): void {
  for (const key of keys) {
    core.db.run(
      `insert into one_time_keys (pool_num, key_id, material, json, uploaded_ts) values (?, ?, ?, ?, ?)`,
      pool.pool_num,
      key.keyId,
      materialHash(key.material),
      key.json,
      now,
    )
  }
  adjustPool(
    core,
    pool,
    keys.length,
    keys.map((key) => ({ key_id: key.keyId, json: key.json })),
  )
}

/** Takes available keys out of a pool, other than by issuing them. */
export function removeKeys(
  core: Core,
  pool: PoolRow,
  keys: readonly AvailableRow[],
  state: 'withdrawn' | 'evicted' | 'purged',
  now: number,
): void {
  if (keys.length === 0) return
  for (const { num } of keys) {
    core.db.run(`update one_time_keys set state = ?, left_ts = ? where num = ?`, STATE_CODE[state], now, num)
  }
  adjustPool(core, pool, -keys.length, keys)
}

/** Count and digest after keys came or went. */
function adjustPool(
  core: Core,
  pool: PoolRow,
  difference: number,
  keys: readonly { readonly key_id: KeyId; readonly json: string }[],
): void {
  if (keys.length === 0) return
  const now = core.db.one<{ digest: Uint8Array }>(
    `select digest from pools where pool_num = ?`,
    pool.pool_num,
  )
  if (now === undefined) throw new Error(`pool ${pool.pool_num} vanished`)
  for (const key of keys) mixIn(now.digest, shareOf(pool.algorithm, key.key_id, key.json))
  core.db.run(
    `update pools set count = count + ?, digest = ? where pool_num = ?`,
    difference,
    now.digest,
    pool.pool_num,
  )
}

/** Remembers a fallback key that is given up, so that a late duplicate of it is not taken for a new one. */
export function forgetFallback(core: Rows, pool: PoolRow, state: 'withdrawn' | 'purged', now: number): void {
  if (pool.fallback_material === null) return
  core.db.run(
    `insert into former_fallback_keys
       (pool_num, material, key_id, uploaded_ts, left_ts, state, issue_count, first_issued_ts)
     select pool_num, ?1, fallback_key_id, fallback_uploaded_ts, ?2, ?3, fallback_issue_count, fallback_first_issued_ts
     from pools where pool_num = ?4
     on conflict do nothing`,
    materialHash(pool.fallback_material),
    now,
    STATE_CODE[state],
    pool.pool_num,
  )
  core.db.run(
    `update pools set fallback_key_id = null, fallback_json = null, fallback_material = null, fallback_used = 0,
       fallback_issue_count = 0, fallback_first_issued_ts = null, fallback_uploaded_ts = null
     where pool_num = ?`,
    pool.pool_num,
  )
}

/**
 * Purges every pool of a device: available keys and fallback keys. Its memory stays, but whoever comes after is another
 * installation and is not shown the keys that this one had.
 */
export function purgePools(core: Rows, device: DeviceRef, now: number): void {
  purgeKeys(core, device, now, { fallbackKeys: true })
  core.db.run(
    `update pools set first_num = (select coalesce(max(num), 0) + 1 from one_time_keys) where device_num = ?`,
    device,
  )
}

/** Purges the available keys of a device, and its fallback keys if asked. */
export function purgeKeys(
  core: Rows,
  device: DeviceRef,
  now: number,
  { fallbackKeys }: { readonly fallbackKeys: boolean },
): void {
  for (const pool of poolsOf(core, device)) {
    core.db.run(
      `update one_time_keys set state = ${STATE_CODE.purged}, left_ts = ?
       where pool_num = ? and state = ${STATE_CODE.available}`,
      now,
      pool.pool_num,
    )
    core.db.run(`update pools set count = 0, digest = ? where pool_num = ?`, emptyDigest(), pool.pool_num)
    if (fallbackKeys) forgetFallback(core, pool, 'purged', now)
  }
}

/** Counts a change of a device's pools. `left`: keys left other than by being issued. */
export function bumpVersion(core: Rows, device: DeviceRef, left: boolean): void {
  core.db.run(
    `update devices set version = version + 1, generation = generation + ? where device_num = ?`,
    left ? 1 : 0,
    device,
  )
}
