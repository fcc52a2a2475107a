/**
 * The facts for a change of a device's pools (pool/port.ts). Counts, digests and fallback keys are in memory; keys are
 * read with one or two statements per pool. The device's rows are settled.
 */
import { type KeyId, parseKeyName } from '@latchkey/protocol'
import { mayBeEvicted } from '../../pool/enter-keys.ts'
import type { IdentityPart } from '../../pool/identity.ts'
import { type HashedKey, type MaterialHash, materialOfJson } from '../../pool/key.ts'
import { ID_REUSE_LOOKBACK } from '../../pool/outcomes.ts'
import { mayBeFormerFallback, mayBeLogged } from '../../pool/one-place.ts'
import type { KnownKey, ListedKey, MetKey, NamedKey } from '../../pool/log-key.ts'
import type { DeviceFacts, PoolFacts, WantedFacts } from '../../pool/port.ts'
import type { DeviceRef } from '../../session.ts'
import { toDayCounts } from '../day-counts.ts'
import { STATE_CODE, stateOf } from '../key-row.ts'
import type { Core } from './core.ts'
import type { Transaction } from './database.ts'
import type { DeviceState, PoolState } from './pool-state.ts'
import { type DeviceRow, type ProvedSession, toIdentity } from './session-device.ts'

/** A device whose session was proved, and its pools in memory. */
export type ProvedDevice = {
  readonly session: ProvedSession
  readonly device: DeviceRow
  readonly state: DeviceState
}

export function loadFacts(
  core: Core,
  tx: Transaction,
  { session: { deviceRef }, device, state }: ProvedDevice,
  wanted: WantedFacts,
): DeviceFacts {
  const { refused_materials: materials, refused_ts: ts } = device
  const { epoch, version, generation } = core.keys.statusOf(state)
  return {
    epoch,
    version,
    generation,
    deviceKeys: device.device_keys ?? undefined,
    identity: toIdentity(device),
    identityChanged: device.identity_changed === 1,
    givenUp: givenUpParts(tx, deviceRef, device, wanted),
    counts: toDayCounts(device, device),
    refused: materials === null || ts === null ? undefined : { materials, ts },
    ...replayFacts(tx, deviceRef, wanted),
    pools: [...state.pools.values()].map((pool) => poolFacts(tx, pool, wanted)),
  }
}

/** The parts of a new identity that the device gave up earlier. */
function givenUpParts(
  tx: Transaction,
  deviceRef: DeviceRef,
  { device_keys: stored }: DeviceRow,
  { deviceKeys }: WantedFacts,
): ReadonlySet<IdentityPart> {
  if (deviceKeys === undefined || deviceKeys.json === stored) return new Set()
  const { ed25519, curve25519 } = deviceKeys.identity
  const row = tx.one<Record<IdentityPart, number | null>>(
    `select max(ed25519 = ?) as ed25519, max(curve25519 = ?) as curve25519 from former_identities where device_num = ?`,
    ed25519 ?? null,
    curve25519 ?? null,
    deviceRef,
  )
  return new Set((['ed25519', 'curve25519'] as const).filter((part) => row?.[part] === 1))
}

function replayFacts(
  tx: Transaction,
  deviceRef: DeviceRef,
  { replay }: WantedFacts,
): Pick<DeviceFacts, 'replay' | 'replaysRemembered'> {
  if (replay === undefined) return { replay: undefined, replaysRemembered: 0 }
  const answered = tx.one<{ answer: string; ts: number }>(
    `select answer, ts from reset_answers where device_num = ? and request_id = ?`,
    deviceRef,
    replay.requestId,
  )
  const remembered = tx.one<{ n: number }>(
    `select count(*) as n from reset_answers where device_num = ? and ts > ?`,
    deviceRef,
    replay.since,
  )
  return { replay: answered, replaysRemembered: remembered?.n ?? 0 }
}

function poolFacts(tx: Transaction, pool: PoolState, wanted: WantedFacts): PoolFacts {
  const { algorithm, count, digest, fallback } = pool
  const keys = wanted.oneTimeKeys.filter((key) => key.algorithm === algorithm)
  const surplus = mayBeEvicted(count, keys.length, wanted.keysPerPool)
  return {
    algorithm,
    count,
    digest,
    fallback: fallback && { material: fallback.material, used: fallback.used },
    ...metKeys(tx, pool, keys, wanted),
    oldest: surplus > 0 ? oldestKeys(tx, pool, surplus) : [],
    available: wanted.available === 'all' ? listedKeys(tx, pool) : [],
    formerFallbacks: formerFallbacks(tx, pool, mayBeFormerFallback(wanted, algorithm)),
  }
}

type KeyRow = {
  readonly num: number
  readonly key_id: KeyId
  readonly material: Uint8Array
}

/**
 * Keys are looked up by their ID only if the material of one is unknown: a repeated upload needs no second statement.
 */
function metKeys(
  tx: Transaction,
  pool: PoolState,
  keys: readonly HashedKey[],
  wanted: WantedFacts,
): Pick<PoolFacts, 'met' | 'availableById' | 'addedSinceIssued'> {
  const { available } = wanted
  const names = available === 'all' ? [] : available.flatMap((name) => parseKeyName(name) ?? [])
  const named = names.filter((name) => name.algorithm === pool.algorithm).map((name) => name.keyId)
  const met = keysByMaterial(tx, pool, mayBeLogged(wanted, pool.algorithm))
  const availableById = new Map<KeyId, NamedKey>()
  const issued: KeyRow[] = []
  const isKnown = keys.every((key) => met.has(key.hash)) && named.length === 0
  for (const row of isKnown ? [] : readById(tx, pool, keys, named)) {
    if (row.json === null) issued.push(row)
    else availableById.set(row.key_id, { ...toKnownKey(row, row.json), json: row.json })
  }
  return { met, availableById, addedSinceIssued: addedSince(tx, pool, issued) }
}

function keysByMaterial(
  tx: Transaction,
  { poolNum }: PoolState,
  keys: readonly HashedKey[],
): ReadonlyMap<MaterialHash, MetKey> {
  const met = new Map<MaterialHash, MetKey>()
  if (keys.length === 0) return met
  const rows = tx.all<KeyRow & { readonly state: number }>(
    `select num, state, key_id, material from one_time_keys
     where pool_num = ? and material in (select unhex(value) from json_each(?)) and +state <> ${STATE_CODE.withdrawn}`,
    poolNum,
    JSON.stringify(keys.map((key) => key.hash)),
  )
  for (const row of rows) {
    const key = toListedKey(row)
    const state = stateOf(row.state)
    if (state !== 'withdrawn') met.set(key.hash, { ...key, state })
  }
  return met
}

/**
 * Available keys, with their text, and the newest issued key with each ID, without. An available key with the ID of a
 * wanted key counts only if its material differs: otherwise it is the wanted key, found by its material. `+state` keeps
 * SQLite from using the index by state, with which it would read every key of the pool.
 */
function readById(
  tx: Transaction,
  { poolNum }: PoolState,
  keys: readonly HashedKey[],
  named: readonly KeyId[],
): (KeyRow & { readonly json: string | null })[] {
  return tx.all(
    `with wanted as materialized (
       select unhex(value ->> 0) as material, value ->> 1 as key_id from json_each(?2))
     select num, key_id, material, json from one_time_keys
     where pool_num = ?1 and key_id in (select key_id from wanted) and +state = ${STATE_CODE.available}
       and (key_id, material) not in (select key_id, material from wanted)
     union all
     select issued, key_id, material, null from (
       select key_id, material, (
         select num from one_time_keys as key
         where key.pool_num = ?1 and key.key_id = wanted.key_id and +key.state = ${STATE_CODE.issued}
         order by num desc limit 1) as issued
       from wanted) where issued is not null
     union all
     select num, key_id, material, json from one_time_keys
     where pool_num = ?1 and key_id in (select value from json_each(?3)) and +state = ${STATE_CODE.available}`,
    poolNum,
    JSON.stringify(keys.map((key) => [key.hash, key.keyId])),
    JSON.stringify(named),
  )
}

/** The number of keys added after each of these issued ones, by ID, counted up to the domain's lookback. */
function addedSince(
  tx: Transaction,
  { poolNum }: PoolState,
  issued: readonly KeyRow[],
): ReadonlyMap<KeyId, number> {
  const since = new Map<KeyId, number>()
  let added = 0
  let newer = Number.MAX_SAFE_INTEGER
  for (const { num, key_id: keyId } of issued.toSorted((a, b) => b.num - a.num)) {
    if (added < ID_REUSE_LOOKBACK) {
      const between = tx.one<{ n: number }>(
        `select count(*) as n from (
           select 1 from one_time_keys
           where pool_num = ? and state in (0, 1, 2, 3, 4) and num > ? and num <= ? limit ${ID_REUSE_LOOKBACK})`,
        poolNum,
        num,
        newer,
      )
      added += between?.n ?? 0
    }
    if (!since.has(keyId)) since.set(keyId, added)
    newer = num
  }
  return since
}

function oldestKeys(tx: Transaction, { poolNum }: PoolState, limit: number): KnownKey[] {
  const rows = tx.all<KeyRow & { readonly json: string }>(
    `select num, key_id, material, json from one_time_keys
     where pool_num = ? and state = ${STATE_CODE.available} order by num limit ?`,
    poolNum,
    limit,
  )
  return rows.map((row) => toKnownKey(row, row.json))
}

function listedKeys(tx: Transaction, { poolNum }: PoolState): ListedKey[] {
  return tx
    .all<KeyRow>(
      `select num, key_id, material from one_time_keys
       where pool_num = ? and state = ${STATE_CODE.available} order by num`,
      poolNum,
    )
    .map(toListedKey)
}

function formerFallbacks(
  tx: Transaction,
  { poolNum }: PoolState,
  keys: readonly HashedKey[],
): ReadonlySet<MaterialHash> {
  if (keys.length === 0) return new Set()
  const rows = tx.all<{ hash: MaterialHash }>(
    `select lower(hex(material)) as hash from former_fallback_keys
     where pool_num = ? and material in (select unhex(value) from json_each(?))`,
    poolNum,
    JSON.stringify(keys.map(({ hash }) => hash)),
  )
  return new Set(rows.map(({ hash }) => hash))
}

function toListedKey({ num, key_id: keyId, material }: KeyRow): ListedKey {
  return { place: num, keyId, hash: Buffer.from(material).toString('hex') as MaterialHash }
}

function toKnownKey(row: KeyRow, json: string): KnownKey {
  return { ...toListedKey(row), material: materialOfJson(json) }
}
