/**
 * A device and its pools in plain arrays: the facts that it gives to a decision, and the changes that it saves
 * (server/src/pool/port.ts). The facts are as narrow as those of a database: what was not asked for is not in them.
 */
import assert from 'node:assert/strict'
import { type Algorithm, emptyDigest, type KeyId, mixIn, parseKeyName } from '@latchkey/protocol'
import type { RefusedTry } from '../../server/src/pool/conflict.ts'
import type { Budget, DayCount, DayCounts } from '../../server/src/pool/day-count.ts'
import type { Identity, IdentityPart } from '../../server/src/pool/identity.ts'
import {
  type HashedKey,
  type KeyState,
  type MaterialHash,
  materialHash,
  shareOf,
  type UploadedKey,
} from '../../server/src/pool/key.ts'
import type {
  DeviceChanges,
  DeviceFacts,
  PoolChange,
  PoolFacts,
  WantedFacts,
} from '../../server/src/pool/port.ts'
import { mayBeFormerFallback, mayBeLogged } from '../../server/src/pool/one-place.ts'
import type { ListedKey, MetKey, NamedKey } from '../../server/src/pool/log-key.ts'

export type LoggedKey = { readonly key: HashedKey; state: KeyState; readonly ts: number; leftTs: number }

export type MemoryFallback = { readonly key: UploadedKey; used: boolean; issueCount: number }

export type MemoryPool = {
  readonly algorithm: Algorithm
  /** In upload order; a key's place is its index. */
  readonly log: LoggedKey[]
  count: number
  digest: Uint8Array
  fallback: MemoryFallback | undefined
  readonly formerFallbacks: Set<MaterialHash>
  /** Issued keys before this place belonged to another installation. */
  firstShown: number
  acknowledged: number
  /** The available keys after the last upload. */
  filled: number
}

export type MemoryDevice = {
  version: number
  generation: number
  deviceKeys: string | undefined
  identity: Identity
  identityChanged: boolean
  formerIdentities: Identity[]
  counts: DayCounts
  refused: RefusedTry | undefined
  replays: Map<string, { readonly answer: string; readonly ts: number }>
  readonly pools: Map<Algorithm, MemoryPool>
  /** How often the device's sync was woken for its own keys. */
  signals: number
}

export const MEMORY_EPOCH = 'epoch'

export function newMemoryDevice(): MemoryDevice {
  return {
    version: 0,
    generation: 0,
    deviceKeys: undefined,
    identity: {},
    identityChanged: false,
    formerIdentities: [],
    counts: countsOf({}),
    refused: undefined,
    replays: new Map(),
    pools: new Map(),
    signals: 0,
  }
}

/** The use of each budget since a day began. */
export function countsOf(used: Partial<Record<Budget, number>>, start = 0): DayCounts {
  const day = (budget: Budget): DayCount => ({ start, used: used[budget] ?? 0 })
  return {
    device_keys: day('device_keys'),
    user_keys: day('user_keys'),
    user_bytes: day('user_bytes'),
    heals: day('heals'),
  }
}

export function newMemoryPool(algorithm: Algorithm): MemoryPool {
  return {
    algorithm,
    log: [],
    count: 0,
    digest: emptyDigest(),
    fallback: undefined,
    formerFallbacks: new Set(),
    firstShown: 0,
    acknowledged: 0,
    filled: 0,
  }
}

/** The available keys of a pool with their places, in upload order. */
export function availableIn(pool: MemoryPool): (LoggedKey & { readonly place: number })[] {
  return pool.log.map((entry, place) => ({ ...entry, place })).filter((entry) => entry.state === 'available')
}

/** The facts that a request may meet, and no others. */
export function loadFacts(device: MemoryDevice, wanted: WantedFacts): DeviceFacts {
  const { version, generation, deviceKeys, identity, identityChanged, counts, refused } = device
  return {
    epoch: MEMORY_EPOCH,
    version,
    generation,
    deviceKeys,
    identity,
    identityChanged,
    givenUp: givenUpParts(device, wanted),
    counts,
    refused,
    replay: wanted.replay && device.replays.get(wanted.replay.requestId),
    replaysRemembered: replaysSince(device, wanted.replay?.since),
    pools: [...device.pools.values()].map((pool) => poolFacts(pool, wanted)),
  }
}

function givenUpParts(device: MemoryDevice, { deviceKeys }: WantedFacts): ReadonlySet<IdentityPart> {
  if (deviceKeys === undefined || deviceKeys.json === device.deviceKeys) return new Set()
  const { identity } = deviceKeys
  const isGivenUp = (part: IdentityPart): boolean =>
    identity[part] !== undefined && device.formerIdentities.some((former) => former[part] === identity[part])
  return new Set((['ed25519', 'curve25519'] as const).filter(isGivenUp))
}

function replaysSince({ replays }: MemoryDevice, since: number | undefined): number {
  return since === undefined ? 0 : [...replays.values()].filter(({ ts }) => ts > since).length
}

function poolFacts(pool: MemoryPool, wanted: WantedFacts): PoolFacts {
  const { algorithm, count, digest, fallback } = pool
  const keys = wanted.oneTimeKeys.filter((key) => key.algorithm === algorithm)
  const surplus = keys.length === 0 ? 0 : Math.max(0, count + keys.length - wanted.keysPerPool)
  const offered = mayBeFormerFallback(wanted, algorithm)
  return {
    algorithm,
    count,
    digest,
    fallback: fallback && { material: fallback.key.material, used: fallback.used },
    met: metKeys(pool, mayBeLogged(wanted, algorithm)),
    availableById: availableById(pool, keys, wanted),
    addedSinceIssued: addedSinceIssued(pool, keys),
    oldest: availableIn(pool).slice(0, surplus).map(known),
    available: wanted.available === 'all' ? availableIn(pool).map(listed) : [],
    formerFallbacks: new Set(
      offered.map(({ hash }) => hash).filter((hash) => pool.formerFallbacks.has(hash)),
    ),
  }
}

function metKeys(pool: MemoryPool, keys: readonly HashedKey[]): ReadonlyMap<MaterialHash, MetKey> {
  const hashes = new Set(keys.map(({ hash }) => hash))
  const met = new Map<MaterialHash, MetKey>()
  for (const [place, { key, state }] of pool.log.entries()) {
    if (hashes.has(key.hash) && state !== 'withdrawn')
      met.set(key.hash, { place, keyId: key.keyId, hash: key.hash, state })
  }
  return met
}

/** An available key with the ID and the material of a wanted one is found by its material alone. */
function availableById(
  pool: MemoryPool,
  keys: readonly HashedKey[],
  { available }: WantedFacts,
): ReadonlyMap<KeyId, NamedKey> {
  const names = available === 'all' ? [] : available.flatMap((name) => parseKeyName(name) ?? [])
  const isNamed = (keyId: KeyId): boolean =>
    names.some((name) => name.algorithm === pool.algorithm && name.keyId === keyId)
  const isMet = (stored: HashedKey): boolean =>
    keys.some((key) => key.keyId === stored.keyId) &&
    !keys.some((key) => key.keyId === stored.keyId && key.hash === stored.hash)
  const found = availableIn(pool).filter(({ key }) => isNamed(key.keyId) || isMet(key))
  return new Map(found.map((entry) => [entry.key.keyId, { ...known(entry), json: entry.key.json }]))
}

function addedSinceIssued(pool: MemoryPool, keys: readonly HashedKey[]): ReadonlyMap<KeyId, number> {
  const ids = new Set(keys.map(({ keyId }) => keyId))
  const added = new Map<KeyId, number>()
  for (const [place, { key, state }] of pool.log.entries())
    if (state === 'issued' && ids.has(key.keyId)) added.set(key.keyId, pool.log.length - 1 - place)
  return added
}

type Placed = { readonly place: number; readonly key: HashedKey }

function listed({ place, key: { keyId, hash } }: Placed): ListedKey {
  return { place, keyId, hash }
}

function known(entry: Placed): ListedKey & { readonly material: HashedKey['material'] } {
  return { ...listed(entry), material: entry.key.material }
}

/** Saves what a decision changed. */
export function saveChanges(device: MemoryDevice, changes: DeviceChanges): void {
  const { pools: change, counts, deviceKeys, givenUp, refused, replay } = changes
  if (change !== undefined) {
    const { version, generation, signal, now } = change
    Object.assign(device, { version, generation })
    if (signal) device.signals++
    for (const one of change.pools) savePool(device, one, now)
  }
  if (counts !== undefined) device.counts = counts
  if (givenUp !== undefined) {
    device.formerIdentities.push(givenUp)
    device.identityChanged = true
  }
  if (deviceKeys !== undefined) {
    device.deviceKeys = deviceKeys.json
    device.identity = deviceKeys.identity
  }
  if (refused !== undefined) device.refused = refused === 'forget' ? undefined : refused
  if (replay !== undefined) {
    const { requestId, answer, ts, forgetUpTo } = replay
    device.replays = new Map([...device.replays].filter(([, kept]) => kept.ts > forgetUpTo))
    if (device.replays.has(requestId)) throw new Error(`the answer of ${requestId} is remembered already`)
    device.replays.set(requestId, { answer, ts })
  }
  if (changes.countsAcknowledged === true)
    for (const pool of device.pools.values()) pool.acknowledged = pool.count
}

function savePool(device: MemoryDevice, change: PoolChange, now: number): void {
  const { algorithm, removed, cleared, added } = change
  const pool = device.pools.get(algorithm) ?? newMemoryPool(algorithm)
  if (change.isNew === device.pools.has(algorithm)) throw new Error(`wrong isNew of pool ${algorithm}`)
  device.pools.set(algorithm, pool)
  for (const [place, entry] of pool.log.entries()) {
    const removal = removed.get(place) ?? (cleared?.kept.includes(place) === false ? cleared.as : undefined)
    if (entry.state === 'available' && removal !== undefined)
      Object.assign(entry, { state: removal, leftTs: now })
  }
  if (change.hidesIssued) pool.firstShown = pool.log.length
  for (const { key, state } of added) pool.log.push({ key, state, ts: now, leftTs: now })
  saveFallback(pool, change)
  pool.count = change.count
  pool.digest = Uint8Array.from(change.digest)
  pool.acknowledged = change.count
  if (change.filled !== undefined) pool.filled = change.filled
  requireTrueSums(pool)
}

/** The count and the digest of a change are those of the keys that it leaves. */
function requireTrueSums(pool: MemoryPool): void {
  const digest = emptyDigest()
  const available = availableIn(pool)
  for (const { key } of available) mixIn(digest, shareOf(pool.algorithm, key.keyId, key.material))
  assert.equal(pool.count, available.length, 'the count is that of the available keys')
  assert.deepEqual(pool.digest, digest, 'the digest is that of the available keys')
}

function saveFallback(pool: MemoryPool, { formerFallback, fallback }: PoolChange): void {
  if (formerFallback !== undefined && pool.fallback !== undefined) {
    pool.formerFallbacks.add(materialHash(pool.fallback.key.material))
    pool.fallback = undefined
  }
  if (fallback !== undefined) pool.fallback = { key: fallback, used: false, issueCount: 0 }
}
