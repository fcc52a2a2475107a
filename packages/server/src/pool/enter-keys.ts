/**
 * The part that upload and reset share: one-time and fallback keys of one request enter the pools of a device. In this
 * order, because a conflict must not be healed for a request that is refused anyway (docs/decisions/0014):
 *
 *     algorithms of the device -> outcomes of the one-time keys -> conflict: 400, or heal -> store
 *     -> evict over the cap -> fallback keys -> daily budgets
 */
import {
  compareCodePoints,
  type FallbackOutcome,
  isCurve25519,
  keyName,
  type KeyName,
  type UploadOutcome,
  utf8Length,
} from '@latchkey/protocol'
import { classifyTry, conflictError, tryOf } from './conflict.ts'
import { countUsed, storesTooMuch } from './daily-budget.ts'
import type { DayCounts } from './day-count.ts'
import { RememberedRefusal } from './decision.ts'
import type { DevicePools } from './device-pools.ts'
import { decideFallback } from './fallback.ts'
import { heal } from './heal.ts'
import type { HashedKey, MaterialHash } from './key.ts'
import { requireAlgorithms } from './limits.ts'
import { isElsewhere } from './one-place.ts'
import { type Conflict, decideOutcomes, type Outcomes } from './outcomes.ts'
import type { PoolPolicy } from './policy.ts'
import type { Pool } from './pool.ts'
import type { DeviceFacts } from './port.ts'

export type EnteredKeys = {
  readonly outcomes: ReadonlyMap<KeyName, UploadOutcome>
  readonly fallbackOutcomes: ReadonlyMap<KeyName, FallbackOutcome>
  readonly storedAs: ReadonlyMap<KeyName, KeyName>
  readonly evicted: readonly KeyName[]
  readonly healed: boolean
  readonly counts: DayCounts
}

export type EnteringKeys = {
  readonly oneTimeKeys: readonly HashedKey[]
  readonly fallbackKeys: readonly HashedKey[]
  readonly now: number
  /** Whether a second try may heal a conflict. A reset never does: it lists the keys to withdraw. */
  readonly mayHeal: boolean
  /** Counts towards the daily budget in addition to the keys: a change of identity. */
  readonly alreadyCounted: number
}

/** @throws {MatrixError} 400 for conflicts and too many algorithms, 429 over the daily budget. */
export function enterKeys(
  pools: DevicePools,
  request: EnteringKeys,
  facts: Pick<DeviceFacts, 'counts' | 'refused'>,
  policy: PoolPolicy,
): EnteredKeys {
  const { oneTimeKeys, fallbackKeys, now } = request
  const wanted = [...oneTimeKeys, ...fallbackKeys].map((key) => key.algorithm)
  requireAlgorithms(pools.algorithms, wanted, policy.algorithmsPerDevice)
  const batches = [...Map.groupBy(oneTimeKeys, (key) => key.algorithm)]
    .sort(([a], [b]) => compareCodePoints(a, b))
    .map(([algorithm, keys]) => ({ pool: pools.open(algorithm), keys }))
  const first = decideBatches(pools, batches)
  const conflicts = first.flatMap(({ decision }) => decision.conflicts)
  const healed = conflicts.length > 0
  const afterHeal = healed ? requireSecondTry(request, conflicts, facts, policy) : facts.counts
  const outcomes = new Map<KeyName, UploadOutcome>()
  const storedAs = new Map<KeyName, KeyName>()
  const evicted: KeyName[] = []
  const stored: HashedKey[] = []
  for (const { pool, decision } of healed ? healBatches(pools, first) : first) {
    pool.append(decision.store)
    stored.push(...decision.store)
    for (const [name, outcome] of decision.outcomes) outcomes.set(name, outcome)
    for (const [name, as] of decision.storedAs) storedAs.set(name, as)
    evicted.push(...evictOver(pool, policy.keysPerPool))
  }
  const fallbackOutcomes = new Map<KeyName, FallbackOutcome>()
  for (const key of fallbackKeys) {
    const pool = pools.open(key.algorithm)
    const isTaken = (one: HashedKey): boolean => isElsewhere(one, 'fallback_key', pool, pools.all)
    const outcome = decideFallback(key, pool, isTaken)
    fallbackOutcomes.set(keyName(key.algorithm, key.keyId), outcome)
    if (outcome !== 'stored') continue
    pool.replaceFallback(key)
    stored.push(key)
  }
  const used = request.alreadyCounted + stored.length
  const counts = countUsed(
    afterHeal,
    { device_keys: used, user_keys: used, user_bytes: bytesOf(stored) },
    policy,
    now,
    storesTooMuch,
  )
  return { outcomes, fallbackOutcomes, storedAs, evicted, healed, counts }
}

/** The keys of a request for one pool, and their outcomes. */
type Batch = { readonly pool: Pool; readonly keys: readonly HashedKey[] }
type DecidedBatch = Batch & { readonly decision: Outcomes }

/** A key that two batches have is stored by the first one, by name of the algorithm. */
function decideBatches(pools: DevicePools, batches: readonly Batch[]): DecidedBatch[] {
  const stored = new Set<MaterialHash>()
  const all = pools.all
  return batches.map(({ pool, keys }) => {
    const isTaken = (key: HashedKey): boolean =>
      (isCurve25519(key.material) && stored.has(key.hash)) || isElsewhere(key, 'one_time_key', pool, all)
    const decision = decideOutcomes(keys, pool, isTaken)
    for (const { hash } of decision.store) stored.add(hash)
    return { pool, keys, decision }
  })
}

/** Empties the pools with conflicts, and decides all batches again. */
function healBatches(pools: DevicePools, batches: readonly DecidedBatch[]): DecidedBatch[] {
  for (const { pool, keys, decision } of batches) if (decision.conflicts.length > 0) heal(pool, keys)
  const again = decideBatches(pools, batches)
  if (again.some(({ decision }) => decision.conflicts.length > 0))
    throw new Error('a healed pool still conflicts')
  return again
}

/** The bytes of names and texts; a row adds about 150, which the number of keys bounds. */
function bytesOf(keys: readonly HashedKey[]): number {
  return keys.reduce((sum, { keyId, json }) => sum + utf8Length(keyId) + utf8Length(json), 0)
}

/**
 * Under `reject`, on the first try and over the daily number of heals, a conflict is refused. Returns the counts with
 * the heal.
 */
function requireSecondTry(
  { mayHeal, oneTimeKeys, now }: EnteringKeys,
  conflicts: readonly Conflict[],
  { counts, refused }: Pick<DeviceFacts, 'counts' | 'refused'>,
  policy: PoolPolicy,
): DayCounts {
  const refusal = conflictError(conflicts)
  if (!mayHeal) throw refusal
  const attempt = tryOf(oneTimeKeys, now)
  const kind = classifyTry(refused, attempt)
  if (kind === 'first') throw new RememberedRefusal(refusal, { refused: attempt })
  if (kind === 'repeat') throw refusal
  return countUsed(counts, { heals: 1 }, policy, now, () => refusal)
}

/**
 * How many available keys of a pool may have to be evicted when a request adds keys to it: the facts list so many, the
 * oldest first.
 */
export function mayBeEvicted(count: number, added: number, keysPerPool: number): number {
  return added === 0 ? 0 : Math.min(count, Math.max(0, count + added - keysPerPool))
}

/** Over the cap the oldest keys are evicted, by upload order for any order of claims. */
function evictOver(pool: Pool, keysPerPool: number): KeyName[] {
  const surplus = pool.count - keysPerPool
  return surplus > 0 ? pool.evict(surplus).map((keyId) => keyName(pool.algorithm, keyId)) : []
}
