/**
 * Saves the domain's changes of a device's pools (pool/port.ts), in the rows and in memory. Few statements, except for
 * one per added key.
 */
import { compareCodePoints } from '@latchkey/protocol'
import { keyHash, materialHash, type Removal } from '../../pool/key.ts'
import type { DeviceChanges, PoolChange, PoolsChange } from '../../pool/port.ts'
import type { DeviceRef, Position } from '../../session.ts'
import { DEVICE_COUNTS, deviceCounts, toDayCounts, USER_COUNTS, userCounts } from '../day-counts.ts'
import { STATE_CODE } from '../key-row.ts'
import { type Core, deviceListChanged } from './core.ts'
import { dropDeviceSignatures } from './cross-signing.ts'
import type { Transaction } from './database.ts'
import type { ProvedDevice } from './load-facts.ts'
import type { ProvedSession } from './session-device.ts'
import { type DeviceState, newPoolState, type PoolState } from './pool-state.ts'

export function saveChanges(core: Core, tx: Transaction, proved: ProvedDevice, changes: DeviceChanges): void {
  const { session, state } = proved
  const { deviceRef } = session
  const { pools: change } = changes
  if (changes.givenUp !== undefined) {
    tx.run(
      `insert into former_identities (device_num, ed25519, curve25519) values (?, ?, ?)`,
      deviceRef,
      changes.givenUp.ed25519 ?? null,
      changes.givenUp.curve25519 ?? null,
    )
    dropDeviceSignatures(tx, deviceRef)
  }
  if (changes.deviceKeys !== undefined) deviceListChanged(core, tx, session.userRef)
  const pools = new Map(state.pools)
  for (const one of change?.pools ?? []) {
    const known = pools.get(one.algorithm) ?? newPool(tx, deviceRef, one)
    pools.set(one.algorithm, savePool(tx, known, one, change?.now ?? 0))
  }
  if (changes.countsAcknowledged === true) acknowledgeCounts(core, tx, deviceRef, pools)
  const saved = saveDevice(core, tx, proved, changes)
  saveUserCounts(tx, session, changes)
  saveRefusal(tx, deviceRef, changes)
  saveReplay(tx, deviceRef, changes)
  core.keys.replace(tx, { ...saved, pools: sorted(pools) })
}

/**
 * The device's own part of the version. The rest is in its pools (key-states.ts): a claim writes only its pool's row.
 */
function ownVersion({ version }: PoolsChange, pools: Iterable<PoolState>): number {
  let own = version
  for (const pool of pools) own -= pool.changes
  return own
}

function sorted(pools: Map<PoolState['algorithm'], PoolState>): DeviceState['pools'] {
  return new Map([...pools].sort(([a], [b]) => compareCodePoints(a, b)))
}

/** Saves the changes of the device's own row, with one statement. */
function saveDevice(
  core: Core,
  tx: Transaction,
  { session: { deviceRef }, device, state }: ProvedDevice,
  { pools: change, deviceKeys, givenUp, counts }: DeviceChanges,
): DeviceState {
  if (change === undefined && deviceKeys === undefined && counts === undefined) return state
  const signalPos = change?.signal === true ? nextSignal(core, tx, deviceRef) : state.signalPos
  const version = change === undefined ? state.version : ownVersion(change, state.pools.values())
  const generation = change?.generation ?? state.generation
  const { ed25519, curve25519 } = deviceKeys?.identity ?? device
  tx.run(
    `update devices set version = ?, generation = ?, signal_pos = ?,
       device_keys = ?, ed25519 = ?, curve25519 = ?, identity_changed = ?, (${DEVICE_COUNTS}) = (?, ?, ?, ?)
     where device_num = ?`,
    version,
    generation,
    signalPos,
    deviceKeys?.json ?? device.device_keys,
    ed25519 ?? null,
    curve25519 ?? null,
    givenUp === undefined ? device.identity_changed : 1,
    ...deviceCounts(counts ?? toDayCounts(device, device)),
    deviceRef,
  )
  return { ...state, version, generation, signalPos }
}

function nextSignal(core: Core, tx: Transaction, deviceRef: DeviceRef): Position {
  core.wakes.device(tx, deviceRef)
  return core.positions.next(tx)
}

function newPool(tx: Transaction, deviceRef: DeviceRef, { algorithm, digest }: PoolChange): PoolState {
  const poolNum = tx.insert(
    `insert into pools (device_num, algorithm, digest) values (?, ?, ?)`,
    deviceRef,
    algorithm,
    digest,
  )
  return newPoolState(poolNum, algorithm)
}

/** Saves a pool's keys and its row; returns its new state for memory. */
function savePool(tx: Transaction, pool: PoolState, change: PoolChange, now: number): PoolState {
  const { poolNum } = pool
  removeKeys(tx, change, now)
  if (change.cleared !== undefined) clearKeys(tx, poolNum, change.cleared, now)
  if (change.hidesIssued) {
    tx.run(
      `update pools set first_num = (select coalesce(max(num), 0) + 1 from one_time_keys) where pool_num = ?`,
      poolNum,
    )
  }
  appendKeys(tx, poolNum, change.added, now)
  if (change.formerFallback !== undefined) rememberFallback(tx, poolNum, pool, change.formerFallback, now)
  const { count, digest, filled = pool.filled } = change
  const fallback = newFallback(change) ?? (change.formerFallback === undefined ? pool.fallback : undefined)
  const isReplaced = change.fallback !== undefined || change.formerFallback !== undefined
  if (isReplaced) {
    tx.run(
      `update pools set count = ?, digest = ?, told = ?, filled = ?, fallback_key_id = ?, fallback_json = ?, fallback_material = ?,
         fallback_uploaded_ts = ?, fallback_used = 0, fallback_issue_count = 0, fallback_first_issued_ts = null
       where pool_num = ?`,
      count,
      digest,
      count,
      filled,
      fallback?.keyId ?? null,
      fallback?.json ?? null,
      fallback?.material ?? null,
      fallback === undefined ? null : now,
      poolNum,
    )
  } else {
    tx.run(
      `update pools set count = ?, digest = ?, told = ?, filled = ? where pool_num = ?`,
      count,
      digest,
      count,
      filled,
      poolNum,
    )
  }
  return {
    ...newPoolState(poolNum, pool.algorithm, { ...pool, count, digest, filled, fallback }),
    acknowledged: count,
  }
}

function newFallback({ fallback }: PoolChange): PoolState['fallback'] {
  if (fallback === undefined) return undefined
  const { keyId, material, json } = fallback
  return {
    keyId,
    material,
    json,
    keyHash: keyHash(material),
    used: false,
    issueCount: 0,
    firstIssuedTs: null,
  }
}

function removeKeys(tx: Transaction, { removed }: PoolChange, now: number): void {
  for (const [state, keys] of Map.groupBy(removed, ([, removal]) => removal)) {
    tx.run(
      `update one_time_keys set state = ?, left_ts = ?, json = null where num in (select value from json_each(?))`,
      STATE_CODE[state],
      now,
      JSON.stringify(keys.map(([num]) => num)),
    )
  }
}

function clearKeys(
  tx: Transaction,
  poolNum: number,
  { as, kept }: NonNullable<PoolChange['cleared']>,
  now: number,
): void {
  tx.run(
    `update one_time_keys set state = ?, left_ts = ?, json = null
     where pool_num = ? and state = ${STATE_CODE.available} and num not in (select value from json_each(?))`,
    STATE_CODE[as],
    now,
    poolNum,
    JSON.stringify(kept),
  )
}

/**
 * One row at a time, so that numbers grow in upload order. For 50 keys this takes two thirds of the processor time of
 * one statement over `json_each` (150 instead of 223 us).
 */
function appendKeys(tx: Transaction, poolNum: number, added: PoolChange['added'], now: number): void {
  for (const { key, state } of added) {
    tx.run(
      `insert into one_time_keys (pool_num, key_id, material, json, uploaded_ts, state, left_ts)
       values (?, ?, ?, ?, ?, ?, ?)`,
      poolNum,
      key.keyId,
      Buffer.from(key.hash, 'hex'),
      state === 'available' ? key.json : null,
      now,
      STATE_CODE[state],
      state === 'available' ? null : now,
    )
  }
}

/** Records the former fallback key of a pool, so that a late duplicate of it does not count as a new one. */
export function rememberFallback(
  tx: Transaction,
  poolNum: number,
  { fallback }: Pick<PoolState, 'fallback'>,
  state: Removal,
  now: number,
): void {
  if (fallback === undefined) return
  tx.run(
    `insert into former_fallback_keys
       (pool_num, material, key_id, uploaded_ts, left_ts, state, issue_count, first_issued_ts)
     select pool_num, ?1, fallback_key_id, fallback_uploaded_ts, ?2, ?3, fallback_issue_count, fallback_first_issued_ts
     from pools where pool_num = ?4
     on conflict do nothing`,
    Buffer.from(materialHash(fallback.material), 'hex'),
    now,
    STATE_CODE[state],
    poolNum,
  )
}

/** The answer carries all counts, so that they are acknowledged from the commit on (pool/wake.ts). */
function acknowledgeCounts(
  core: Core,
  tx: Transaction,
  deviceRef: DeviceRef,
  pools: ReadonlyMap<PoolState['algorithm'], PoolState>,
): void {
  core.advertised.forget(deviceRef)
  for (const pool of pools.values()) {
    if (pool.acknowledged === pool.count) continue
    tx.run(`update pools set told = ? where pool_num = ?`, pool.count, pool.poolNum)
    pool.acknowledged = pool.count
  }
}

function saveUserCounts(tx: Transaction, { userRef }: ProvedSession, { counts }: DeviceChanges): void {
  if (counts === undefined) return
  tx.run(
    `update users set (${USER_COUNTS}) = (?, ?, ?, ?) where user_num = ?`,
    ...userCounts(counts),
    userRef,
  )
}

function saveRefusal(tx: Transaction, deviceRef: DeviceRef, { refused }: DeviceChanges): void {
  if (refused === undefined) return
  if (refused === 'forget') tx.run(`delete from conflicts where device_num = ?`, deviceRef)
  else {
    tx.run(
      `insert into conflicts (device_num, materials, ts) values (?1, ?2, ?3)
       on conflict do update set materials = ?2, ts = ?3`,
      deviceRef,
      refused.materials,
      refused.ts,
    )
  }
}

function saveReplay(tx: Transaction, deviceRef: DeviceRef, { replay }: DeviceChanges): void {
  if (replay === undefined) return
  tx.run(`delete from reset_answers where device_num = ? and ts <= ?`, deviceRef, replay.forgetUpTo)
  tx.run(
    `insert into reset_answers (device_num, request_id, ts, answer) values (?, ?, ?, ?)`,
    deviceRef,
    replay.requestId,
    replay.ts,
    replay.answer,
  )
}
