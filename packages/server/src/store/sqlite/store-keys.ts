/**
 * The part that upload and reset share: one-time and fallback keys of one request enter the pools of one device.
 * Rules: pool/upload.ts, pool/conflict.ts, pool/fallback.ts, pool/identity.ts. After `keys.settle`, in a transaction.
 */
import {
  emptyDigest,
  keyName,
  SIGNED_CURVE25519,
  type Algorithm,
  type FallbackOutcome,
  type KeyName,
  type UploadOutcome,
} from '@latchkey/protocol'
import { conflictError } from '../../pool/conflict.ts'
import { decideFallback } from '../../pool/fallback.ts'
import type { Identity } from '../../pool/identity.ts'
import { overDailyBudget, tooManyAlgorithms } from '../../pool/limits.ts'
import type { UploadedKey } from '../../pool/port.ts'
import { requireSignedKeys } from '../../pool/signed-keys.ts'
import { type Conflict, decideUpload, type UploadDecision } from '../../pool/upload.ts'
import type { Session } from '../../session.ts'
import type { Core } from './core.ts'
import type { DeviceRow } from './session-device.ts'
import { materialHash, materialOfJson } from '../key-row.ts'
import {
  appendKeys,
  availableKeys,
  countOf,
  forgetFallback,
  memoryOf,
  poolOf,
  type PoolRow,
  poolsOf,
  removeKeys,
} from './pool-rows.ts'

export type StoredKeys = {
  readonly outcomes: Map<KeyName, UploadOutcome>
  readonly fallbackOutcomes: Map<KeyName, FallbackOutcome>
  readonly storedAs: Map<KeyName, KeyName>
  readonly evicted: KeyName[]
  readonly healed: boolean
  /** Whether anything was written. */
  readonly changed: boolean
}

type KeysRequest = {
  readonly session: Session
  readonly oneTimeKeys: readonly UploadedKey[]
  readonly fallbackKeys: readonly UploadedKey[]
  readonly now: number
  /** Whether a second try may purge the pool (pool/conflict.ts). A reset is answered 400: it says itself what to purge. */
  readonly mayHeal: boolean
  /** What counts towards the daily budget beside the keys: a changed identity. */
  readonly alreadyStored: number
}

/** @throws {MatrixError} 400 for conflicts and bad signatures, 429 over the daily budget. */
export function storeKeys(
  core: Core,
  device: DeviceRow,
  identity: Identity,
  request: KeysRequest,
): StoredKeys {
  const { session, oneTimeKeys, fallbackKeys, now } = request
  if (core.policy.verifySignatures || device.identity_changed === 1) {
    requireSignedKeys([...oneTimeKeys, ...fallbackKeys], identity, session)
  }
  const result: Omit<StoredKeys, 'healed' | 'changed'> = {
    outcomes: new Map(),
    fallbackOutcomes: new Map(),
    storedAs: new Map(),
    evicted: [],
  }
  const decided = [...Map.groupBy(oneTimeKeys, (key) => key.algorithm)].map(([algorithm, keys]) => {
    const pool = openPool(core, session, algorithm)
    return { pool, keys, decision: decideUpload(keys, memoryOf(core, pool)) }
  })
  const conflicts = decided.flatMap(({ decision }) => decision.conflicts)
  const healed = conflicts.length > 0
  if (healed) requireSecondTry(core, request, conflicts)
  let stored = request.alreadyStored
  for (const { pool, keys, decision } of decided) {
    const final = decision.conflicts.length > 0 ? healPool(core, pool, keys, now) : decision
    appendKeys(core, pool, final.store, now)
    stored += final.store.length
    for (const [name, outcome] of final.outcomes) result.outcomes.set(name, outcome)
    for (const [name, as] of final.storedAs) result.storedAs.set(name, as)
    result.evicted.push(...evictOldest(core, pool, now))
  }
  for (const key of fallbackKeys) {
    const outcome = storeFallback(core, request, key)
    result.fallbackOutcomes.set(keyName(key.algorithm, key.keyId), outcome)
    if (outcome === 'stored') stored++
  }
  countDay(core, request, device, stored)
  return { ...result, healed, changed: stored > request.alreadyStored || healed }
}

/** The pool of an algorithm, made on first use. */
function openPool(core: Core, session: Session, algorithm: Algorithm): PoolRow {
  const existing = poolOf(core, session.deviceRef, algorithm)
  if (existing !== undefined) return existing
  // The algorithm that everybody needs is never shut out by those that nobody does.
  const full = poolsOf(core, session.deviceRef).length >= core.policy.algorithmsPerDevice
  if (full && algorithm !== SIGNED_CURVE25519) {
    throw tooManyAlgorithms(core.policy.algorithmsPerDevice)
  }
  core.db.run(
    `insert into pools (device_num, algorithm, digest) values (?, ?, ?)`,
    session.deviceRef,
    algorithm,
    emptyDigest(),
  )
  const made = poolOf(core, session.deviceRef, algorithm)
  if (made === undefined) throw new Error('a pool just made is not there')
  return made
}

/** Under `reject`, or on the first try, a conflict is the answer. */
function requireSecondTry(core: Core, request: KeysRequest, conflicts: readonly Conflict[]): void {
  const secondTry =
    request.mayHeal &&
    core.policy.onConflict === 'heal' &&
    core.conflicts.isSecondTry(request.session.deviceRef, request.oneTimeKeys, request.now)
  if (!secondTry) throw conflictError(conflicts)
}

/**
 * The client has forgotten its keys: every available key goes and its batch comes. What the batch offers again was never
 * lost, so it counts as withdrawn: it may enter anew.
 */
function healPool(core: Core, pool: PoolRow, keys: readonly UploadedKey[], now: number): UploadDecision {
  const held = new Set(keys.map((key) => key.material))
  const { offered = [], forgotten = [] } = Object.groupBy(availableKeys(core, pool), (row) =>
    held.has(materialOfJson(row.json)) ? 'offered' : 'forgotten',
  )
  removeKeys(core, pool, offered, 'withdrawn', now)
  removeKeys(core, pool, forgotten, 'purged', now)
  const decision = decideUpload(keys, memoryOf(core, pool))
  if (decision.conflicts.length > 0) throw new Error('a healed pool still conflicts')
  return decision
}

/** Over the cap the oldest go, by upload order whatever the order of claims. */
function evictOldest(core: Core, pool: PoolRow, now: number): KeyName[] {
  const surplus = countOf(core, pool) - core.policy.keysPerPool
  if (surplus <= 0) return []
  const oldest = availableKeys(core, pool, surplus)
  removeKeys(core, pool, oldest, 'evicted', now)
  return oldest.map((row) => keyName(pool.algorithm, row.key_id))
}

const DAY_MS = 24 * 60 * 60 * 1000

function countDay(core: Core, { session, now }: KeysRequest, device: DeviceRow, stored: number): void {
  const budget = core.policy.keysPerDeviceAndDay
  if (stored === 0 || budget === 0) return
  const newDay = now - device.day_start_ts >= DAY_MS || now < device.day_start_ts
  const start = newDay ? now : device.day_start_ts
  const total = (newDay ? 0 : device.day_stored) + stored
  if (total > budget) throw overDailyBudget(budget)
  core.db.run(
    `update devices set day_start_ts = ?, day_stored = ? where device_num = ?`,
    start,
    total,
    session.deviceRef,
  )
}

function storeFallback(core: Core, { session, now }: KeysRequest, key: UploadedKey): FallbackOutcome {
  const pool = openPool(core, session, key.algorithm)
  const isFormer = (): boolean =>
    core.db.one(
      `select 1 from former_fallback_keys where pool_num = ? and material = ?`,
      pool.pool_num,
      materialHash(key.material),
    ) !== undefined
  const outcome = decideFallback(key.material, pool.fallback_material ?? undefined, isFormer)
  if (outcome !== 'stored') return outcome
  forgetFallback(core, pool, 'withdrawn', now)
  core.db.run(
    `update pools set fallback_key_id = ?, fallback_json = ?, fallback_material = ?, fallback_uploaded_ts = ?
     where pool_num = ?`,
    key.keyId,
    key.json,
    key.material,
    now,
    pool.pool_num,
  )
  return outcome
}
