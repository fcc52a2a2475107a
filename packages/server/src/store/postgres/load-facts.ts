/**
 * The facts that a change of a device's pools needs (pool/port.ts): one statement per pool that keys are uploaded to,
 * and one for each further kind of fact.
 */
import { type KeyId, parseKeyName } from '@latchkey/protocol'
import { mayBeEvicted } from '../../pool/enter-keys.ts'
import type { IdentityPart } from '../../pool/identity.ts'
import { type HashedKey, type MaterialHash, materialOfJson } from '../../pool/key.ts'
import { ID_REUSE_LOOKBACK } from '../../pool/outcomes.ts'
import { mayBeFormerFallback, mayBeLogged } from '../../pool/one-place.ts'
import type { KnownKey, ListedKey, MetKey, NamedKey } from '../../pool/log-key.ts'
import type { DeviceFacts, PoolFacts, WantedFacts } from '../../pool/port.ts'
import { toDayCounts, type UserCountsRow } from '../day-counts.ts'
import { STATE_CODE, stateOf } from '../key-row.ts'
import type { Core, Write } from './core.ts'
import { lockedDigests } from './digests.ts'
import { bytesOf, type PoolRow } from './pool-row.ts'
import { type LockedDevice, toIdentity } from './session-device.ts'

export async function loadFacts(
  core: Core,
  tx: Write,
  locked: LockedDevice,
  wanted: WantedFacts,
): Promise<DeviceFacts> {
  const { row, pools } = locked
  const digests = await lockedDigests(core.digests, tx, tx.fence.epoch, pools)
  const available = await listedKeys(tx, pools, wanted)
  const former = await formerFallbacks(tx, pools, wanted)
  const facts: PoolFacts[] = []
  for (const pool of pools) {
    const keys = wanted.oneTimeKeys.filter((key) => key.algorithm === pool.algorithm)
    const { fallback_material: material, fallback_used: used } = pool
    facts.push({
      algorithm: pool.algorithm,
      count: pool.count,
      digest: Buffer.from(digests.get(pool.pool_num) ?? '', 'base64url'),
      fallback: material === null ? undefined : { material, used },
      ...(await metKeys(tx, pool, keys, wanted)),
      oldest: await oldestKeys(tx, pool, keys.length, wanted.keysPerPool),
      available: available.get(pool.pool_num) ?? [],
      formerFallbacks: former.get(pool.pool_num) ?? new Set(),
    })
  }
  return {
    epoch: tx.fence.epoch,
    version: pools.reduce((sum, pool) => sum + pool.changes, row.version),
    generation: row.generation,
    deviceKeys: row.device_keys ?? undefined,
    identity: toIdentity(row),
    identityChanged: row.identity_changed,
    givenUp: await givenUpParts(tx, locked, wanted),
    counts: toDayCounts(row, locked.owner?.counts ?? NOTHING_USED),
    refused: locked.refused,
    ...(await replayFacts(tx, locked, wanted)),
    pools: facts,
  }
}

/** Where the user is not locked, the request stores nothing that counts. */
const NOTHING_USED: UserCountsRow = {
  keys_day_start_ts: 0,
  keys_used: 0,
  bytes_day_start_ts: 0,
  bytes_used: 0,
}

/** The parts of a new identity that the device gave up earlier. */
async function givenUpParts(
  tx: Write,
  { deviceRef, row }: LockedDevice,
  { deviceKeys }: WantedFacts,
): Promise<ReadonlySet<IdentityPart>> {
  if (deviceKeys === undefined || deviceKeys.json === row.device_keys) return new Set()
  const { ed25519, curve25519 } = deviceKeys.identity
  const found = await tx.one<Record<IdentityPart, boolean | null>>(
    `select bool_or(ed25519 = $2) as ed25519, bool_or(curve25519 = $3) as curve25519
     from former_identities where device_num = $1`,
    deviceRef,
    ed25519 ?? null,
    curve25519 ?? null,
  )
  return new Set((['ed25519', 'curve25519'] as const).filter((part) => found?.[part] === true))
}

async function replayFacts(
  tx: Write,
  { deviceRef }: LockedDevice,
  { replay }: WantedFacts,
): Promise<Pick<DeviceFacts, 'replay' | 'replaysRemembered'>> {
  if (replay === undefined) return { replay: undefined, replaysRemembered: 0 }
  const row = await tx.one<{ n: number; answer: string | null; ts: number | null }>(
    `select count(*) filter (where ts > $3) as n, max(answer) filter (where request_id = $2) as answer,
       max(ts) filter (where request_id = $2) as ts
     from reset_answers where device_num = $1`,
    deviceRef,
    replay.requestId,
    replay.since,
  )
  const { n = 0, answer = null, ts = null } = row ?? {}
  return { replay: answer === null || ts === null ? undefined : { answer, ts }, replaysRemembered: n }
}

type KeyRow = {
  readonly pool_num: number
  readonly seq: number
  readonly key_id: KeyId
  readonly hash: MaterialHash
}

type MetRow = KeyRow & { readonly state: number; readonly json: string | null; readonly by_material: boolean }

async function metKeys(
  tx: Write,
  pool: PoolRow,
  keys: readonly HashedKey[],
  wanted: WantedFacts,
): Promise<Pick<PoolFacts, 'met' | 'availableById' | 'addedSinceIssued'>> {
  const { available } = wanted
  const names = available === 'all' ? [] : available.flatMap((name) => parseKeyName(name) ?? [])
  const named = names.filter((name) => name.algorithm === pool.algorithm).map((name) => name.keyId)
  const met = new Map<MaterialHash, MetKey>()
  const availableById = new Map<KeyId, NamedKey>()
  const addedSinceIssued = new Map<KeyId, number>()
  const logged = mayBeLogged(wanted, pool.algorithm)
  const isEmpty = pool.last_seq === 0 || logged.length + named.length === 0
  for (const row of isEmpty ? [] : await readMet(tx, pool, keys, logged, named)) {
    const state = stateOf(row.state)
    if (row.by_material) {
      if (state !== 'withdrawn') met.set(row.hash, { ...listed(row), state })
    } else if (row.json !== null) availableById.set(row.key_id, { ...known(row, row.json), json: row.json })
    else {
      const added = pool.last_seq - row.seq
      addedSinceIssued.set(row.key_id, Math.min(added, addedSinceIssued.get(row.key_id) ?? added))
    }
  }
  return { met, availableById, addedSinceIssued }
}

/**
 * The wanted keys that the log holds: `logged` by the hash of their material, `keys` by their ID. An available key with
 * the ID of a wanted key counts only if its material differs, or if its ID is named: otherwise it is found by its
 * material. The log has no index by ID, so IDs are compared with the available keys and the keys of the domain's
 * lookback. `coalesce` keeps the condition from becoming a join, so that IDs are hashed once and rows are read once.
 */
function readMet(
  tx: Write,
  { pool_num: num, head, last_seq: lastSeq }: PoolRow,
  keys: readonly HashedKey[],
  logged: readonly HashedKey[],
  named: readonly KeyId[],
): Promise<MetRow[]> {
  return tx.all<MetRow>(
    `select pool_num, seq, key_id, encode(material, 'hex') as hash, null as json, true as by_material,
       case when state = ${STATE_CODE.available} and seq < $4 then ${STATE_CODE.issued} else state end as state
     from one_time_keys
     where pool_num = $1 and material = any($7::bytea[]) and state <> ${STATE_CODE.withdrawn}
       -- The index has the first 3 bytes of a material.
       and substr(material, 1, 3) = any(array(select substr(wanted, 1, 3) from unnest($7::bytea[]) as wanted))
     union all
     select pool_num, seq, key_id, encode(material, 'hex'),
       case when state = ${STATE_CODE.available} and seq >= $4 then json end, false, state
     from one_time_keys
     where pool_num = $1 and seq > $5 and state in (${STATE_CODE.available}, ${STATE_CODE.issued})
       and (coalesce(key_id in (select unnest($6::text[])), false)
         or (coalesce(key_id in (select unnest($3::text[])), false) and (key_id, material) not in (
           select * from unnest($3::text[], $2::bytea[]))))`,
    num,
    keys.map((key) => bytesOf(key.hash)),
    keys.map((key) => key.keyId),
    head,
    Math.min(lastSeq - ID_REUSE_LOOKBACK, head - 1),
    named,
    logged.map((key) => bytesOf(key.hash)),
  )
}

/** The oldest available keys, as many as are evicted if all keys of the request are stored. */
async function oldestKeys(tx: Write, pool: PoolRow, added: number, keysPerPool: number): Promise<KnownKey[]> {
  const surplus = mayBeEvicted(pool.count, added, keysPerPool)
  if (surplus === 0) return []
  const rows = await tx.all<KeyRow & { json: string }>(
    `select pool_num, seq, key_id, encode(material, 'hex') as hash, json from one_time_keys
     where pool_num = $1 and seq >= $2 and state = ${STATE_CODE.available} order by seq limit $3`,
    pool.pool_num,
    pool.head,
    surplus,
  )
  return rows.map((row) => known(row, row.json))
}

/** All available keys by pool, if they are wanted. */
async function listedKeys(
  tx: Write,
  pools: readonly PoolRow[],
  { available }: WantedFacts,
): Promise<ReadonlyMap<number, ListedKey[]>> {
  const filled = available === 'all' ? pools.filter((pool) => pool.count > 0) : []
  if (filled.length === 0) return new Map()
  const rows = await tx.all<KeyRow>(
    `select pool_num, seq, key_id, encode(material, 'hex') as hash from pools join one_time_keys using (pool_num)
     where pool_num = any($1::bigint[]) and seq >= head and state = ${STATE_CODE.available} order by seq`,
    filled.map((pool) => pool.pool_num),
  )
  return groupedByPool(rows, listed)
}

/** The uploaded fallback keys that were replaced or purged earlier, by pool. */
async function formerFallbacks(
  tx: Write,
  pools: readonly PoolRow[],
  offered: WantedFacts,
): Promise<ReadonlyMap<number, ReadonlySet<MaterialHash>>> {
  const wanted = pools.flatMap(({ pool_num: num, algorithm }) =>
    mayBeFormerFallback(offered, algorithm).map(({ hash }) => ({ num, hash })),
  )
  if (wanted.length === 0) return new Map()
  const rows = await tx.all<Pick<KeyRow, 'pool_num' | 'hash'>>(
    `select pool_num, encode(material, 'hex') as hash
     from unnest($1::bigint[], $2::bytea[]) as wanted (pool_num, material)
     join former_fallback_keys using (pool_num, material)`,
    wanted.map(({ num }) => num),
    wanted.map(({ hash }) => bytesOf(hash)),
  )
  const hashes = groupedByPool(rows, ({ hash }) => hash)
  return new Map([...hashes].map(([num, own]) => [num, new Set(own)]))
}

function groupedByPool<Row extends { readonly pool_num: number }, Value>(
  rows: readonly Row[],
  valueOf: (row: Row) => Value,
): Map<number, Value[]> {
  const byPool = Map.groupBy(rows, (row) => row.pool_num)
  return new Map([...byPool].map(([num, own]) => [num, own.map(valueOf)]))
}

function listed({ seq, key_id: keyId, hash }: KeyRow): ListedKey {
  return { place: seq, keyId, hash }
}

function known(row: KeyRow, json: string): KnownKey {
  return { ...listed(row), material: materialOfJson(json) }
}
