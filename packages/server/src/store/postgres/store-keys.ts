/**
 * The part that upload and reset share: one-time and fallback keys of one request enter the pools of one locked device.
 * Rules: pool/upload.ts, pool/conflict.ts, pool/fallback.ts, pool/identity.ts. Changes memory only; save-keys.ts writes it.
 */
import {
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
import { decideUpload, type UploadDecision } from '../../pool/upload.ts'
import type { Session } from '../../session.ts'
import { materialHash } from '../key-row.ts'
import type { Core } from './core.ts'
import type { Queries } from './database.ts'
import { type Log, memoryOf, readLog } from './pool-memory.ts'
import { type HashedKey, hashOf, loadPools, makePools, Pool } from './pool-rows.ts'
import type { DeviceRow } from './session-device.ts'

export type StoredKeys = {
  readonly outcomes: Map<KeyName, UploadOutcome>
  readonly fallbackOutcomes: Map<KeyName, FallbackOutcome>
  readonly storedAs: Map<KeyName, KeyName>
  readonly evicted: KeyName[]
  readonly healed: boolean
  /** Whether anything was stored. */
  readonly changed: boolean
  /** Every pool of the device, by algorithm. */
  readonly pools: readonly Pool[]
  /** What the device has used of its daily budget from now on. */
  readonly day: DayCount
}

export type DayCount = { readonly day_start_ts: number; readonly day_stored: number }

export type KeysRequest = {
  readonly session: Session
  readonly oneTimeKeys: readonly UploadedKey[]
  readonly fallbackKeys: readonly UploadedKey[]
  readonly now: number
  /** Asked at a conflict: may it purge the pool (pool/conflict.ts)? A reset is answered 400: it says itself what to purge. */
  readonly mayHeal: () => Promise<boolean>
  /** What counts towards the daily budget beside the keys: a changed identity. */
  readonly alreadyStored: number
}

/**
 * @param before the device's pools, locked
 * @throws {MatrixError} 400 for conflicts and bad signatures, 429 over the daily budget.
 */
export async function storeKeys(
  { policy }: Core,
  tx: Queries,
  device: DeviceRow,
  identity: Identity,
  before: readonly Pool[],
  request: KeysRequest,
): Promise<StoredKeys> {
  const { session, oneTimeKeys, fallbackKeys, now } = request
  if (policy.verifySignatures || device.identity_changed) {
    requireSignedKeys([...oneTimeKeys, ...fallbackKeys], identity, session)
  }
  const pools = withMissing(before, request, policy.algorithmsPerDevice)
  const decided = []
  for (const [algorithm, uploaded] of Map.groupBy(oneTimeKeys, (key) => key.algorithm)) {
    const pool = poolIn(pools, algorithm)
    const keys = uploaded.map((key) => ({ ...key, hash: hashOf(key.material) }))
    const log = await readLog(tx, pool, keys)
    decided.push({ pool, keys, log, decision: decideUpload(keys, memoryOf(pool, log, keys)) })
  }
  const conflicts = decided.flatMap(({ decision }) => decision.conflicts)
  const healed = conflicts.length > 0
  if (healed && !(await request.mayHeal())) throw conflictError(conflicts)
  const result = {
    outcomes: new Map<KeyName, UploadOutcome>(),
    fallbackOutcomes: new Map<KeyName, FallbackOutcome>(),
    storedAs: new Map<KeyName, KeyName>(),
    evicted: [] as KeyName[],
  }
  let stored = request.alreadyStored
  for (const { pool, keys, log, decision } of decided) {
    const overflows = pool.row.count + decision.store.length > policy.keysPerPool
    if (overflows || decision.conflicts.length > 0) await loadPools(tx, [pool])
    const final = decision.conflicts.length > 0 ? healPool(pool, keys, log) : decision
    pool.append(final.store)
    stored += final.store.length
    for (const [name, outcome] of final.outcomes) result.outcomes.set(name, outcome)
    for (const [name, as] of final.storedAs) result.storedAs.set(name, as)
    if (pool.row.count > policy.keysPerPool) result.evicted.push(...evictOldest(pool, policy.keysPerPool))
  }
  const isFormer = await formerFallbacks(tx, pools, fallbackKeys)
  for (const key of fallbackKeys) {
    const pool = poolIn(pools, key.algorithm)
    const outcome = decideFallback(key.material, pool.row.fallback_material ?? undefined, () =>
      isFormer.has(key),
    )
    result.fallbackOutcomes.set(keyName(key.algorithm, key.keyId), outcome)
    if (outcome !== 'stored') continue
    pool.replaceFallback(key, now)
    stored++
  }
  const day = countDay(policy.keysPerDeviceAndDay, device, stored, now)
  await makePools(tx, session.deviceRef, pools)
  return { ...result, healed, changed: stored > request.alreadyStored || healed, pools, day }
}

/** The device's pools with those of the request's algorithms. */
function withMissing(
  before: readonly Pool[],
  { oneTimeKeys, fallbackKeys }: KeysRequest,
  limit: number,
): readonly Pool[] {
  const known = new Set(before.map((pool) => pool.algorithm))
  const missing = new Set<Algorithm>()
  for (const { algorithm } of [...oneTimeKeys, ...fallbackKeys]) {
    if (known.has(algorithm) || missing.has(algorithm)) continue
    // The algorithm that everybody needs is never shut out by those that nobody does.
    const full = known.size + missing.size >= limit
    if (full && algorithm !== SIGNED_CURVE25519) throw tooManyAlgorithms(limit)
    missing.add(algorithm)
  }
  const added = [...missing].map((algorithm) => Pool.empty(algorithm))
  return [...before, ...added].sort((a, b) => (a.algorithm < b.algorithm ? -1 : 1))
}

function poolIn(pools: readonly Pool[], algorithm: Algorithm): Pool {
  const pool = pools.find((candidate) => candidate.algorithm === algorithm)
  if (pool === undefined) throw new Error(`there is no pool of ${algorithm}`)
  return pool
}

/**
 * The client has forgotten its keys: every available key goes and its batch comes. What the batch offers again was never
 * lost, so it counts as withdrawn: it may enter anew.
 */
function healPool(pool: Pool, keys: readonly HashedKey[], log: Log): UploadDecision<HashedKey> {
  const held = new Set(keys.map((key) => key.hash))
  const { offered = [], forgotten = [] } = Object.groupBy(pool.available, (key) =>
    held.has(key.hash) ? 'offered' : 'forgotten',
  )
  pool.remove(offered, 'withdrawn')
  pool.remove(forgotten, 'purged')
  const decision = decideUpload(keys, memoryOf(pool, log, keys))
  if (decision.conflicts.length > 0) throw new Error('a healed pool still conflicts')
  return decision
}

/** Over the cap the oldest go, by upload order whatever the order of claims. */
function evictOldest(pool: Pool, cap: number): KeyName[] {
  const oldest = pool.available.slice(0, Math.max(0, pool.available.length - cap))
  pool.remove(oldest, 'evicted')
  return oldest.map((key) => keyName(pool.algorithm, key.key_id))
}

/** Those of the uploaded fallback keys that were replaced or purged before. */
async function formerFallbacks(
  tx: Queries,
  pools: readonly Pool[],
  keys: readonly UploadedKey[],
): Promise<ReadonlySet<UploadedKey>> {
  const asked = keys.map((key) => ({ num: poolIn(pools, key.algorithm).row.pool_num, key }))
  if (asked.length === 0) return new Set()
  const rows = await tx.all<{ i: number }>(
    `select i from unnest($1::bigint[], $2::bytea[]) with ordinality as asked (pool_num, material, i)
     join former_fallback_keys using (pool_num, material)`,
    asked.map(({ num }) => num),
    asked.map(({ key }) => materialHash(key.material)),
  )
  return new Set(rows.flatMap(({ i }) => keys[i - 1] ?? []))
}

const DAY_MS = 24 * 60 * 60 * 1000

function countDay(budget: number, device: DayCount, stored: number, now: number): DayCount {
  if (stored === 0 || budget === 0) return device
  const newDay = now - device.day_start_ts >= DAY_MS || now < device.day_start_ts
  const total = (newDay ? 0 : device.day_stored) + stored
  if (total > budget) throw overDailyBudget(budget)
  return { day_start_ts: newDay ? now : device.day_start_ts, day_stored: total }
}
