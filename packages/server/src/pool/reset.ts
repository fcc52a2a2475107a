/**
 * `/keys/reset` (MSC4162): withdraws available keys and stores their replacements, in one transaction (key-pool.md
 * "Reset"). Withdrawn keys were never issued and are safe to forget; absent ones may be in flight and must be kept.
 *
 *     replay -> rate limit -> preconditions -> number of remembered answers -> withdraw -> signatures
 *     -> the replacements
 */
import { type KeyName, keyName, parseKeyName } from '@latchkey/protocol'
import { MatrixError } from '../matrix-error.ts'
import type { PoolStatus, ResetCommand, ResetResult } from './commands.ts'
import { decided } from './decision.ts'
import { DevicePools } from './device-pools.ts'
import { enterKeys } from './enter-keys.ts'
import { hashed, type HashedKey } from './key.ts'
import { tooFast } from './limits.ts'
import type { PoolPolicy } from './policy.ts'
import { keyPoolOf } from './pool-answer.ts'
import type { Pool } from './pool.ts'
import { type Decide, type DeviceChanges, NO_CHANGES, type WantedFacts } from './port.ts'
import {
  decodeReplay,
  encodeReplay,
  REPLAY_RESET_MS,
  REPLAYED_RESETS_PER_DEVICE,
  tooManyResets,
} from './reset-replay.ts'
import type { SignatureChecks } from './signed-keys.ts'

/** The facts that a reset may meet: where it has to wait, only whether it is a replay. */
export function factsForReset(
  { oneTimeKeys, fallbackKeys, withdrawal, requestId, now }: ResetCommand,
  { keysPerPool }: PoolPolicy,
  waitMs: number,
): WantedFacts {
  const isWaiting = waitMs > 0
  const names = withdrawal.all ? 'all' : [...new Set(withdrawal.names)]
  return {
    oneTimeKeys: isWaiting ? [] : hashed(oneTimeKeys),
    fallbackKeys: isWaiting ? [] : hashed(fallbackKeys),
    available: isWaiting ? [] : names,
    keysPerPool,
    ...(requestId !== undefined && { replay: { requestId, since: now - REPLAY_RESET_MS } }),
  }
}

/** A reset's answer; `replayed` when it was given before, which costs nothing of the rate limit. */
export type DecidedReset = { readonly result: ResetResult; readonly replayed: boolean }

/**
 * The decision about a reset.
 *
 * @param waitMs how long the device's rate limit makes it wait; 0 when it may reset now
 */
export function decideReset(
  command: ResetCommand,
  wanted: WantedFacts,
  policy: PoolPolicy,
  signatures: SignatureChecks,
  waitMs: number,
): Decide<DecidedReset> {
  return (facts) =>
    decided(() => {
      const { requestId, now } = command
      if (facts.replay !== undefined && facts.replay.ts > now - REPLAY_RESET_MS) {
        const answer = { result: decodeReplay(facts.replay.answer), replayed: true }
        return { kind: 'answer', answer, changes: NO_CHANGES }
      }
      if (waitMs > 0) throw tooFast('resets its keys', waitMs)
      const pools = new DevicePools(facts)
      checkPreconditions(command, pools.status())
      if (requestId !== undefined && facts.replaysRemembered >= REPLAYED_RESETS_PER_DEVICE)
        throw tooManyResets()
      const { oneTimeKeys, fallbackKeys } = wanted
      const { withdrawn, absent } = withdraw(pools, wanted)
      if (policy.verifySignatures || facts.identityChanged) {
        const missing = signatures.require(facts.identity)
        if (missing !== undefined) return missing
      }
      const entering = { oneTimeKeys, fallbackKeys, now, mayHeal: false, alreadyCounted: 0 }
      const entered = enterKeys(pools, entering, facts, policy)
      const { outcomes, fallbackOutcomes, storedAs, evicted, counts } = entered
      const left = withdrawn.length > 0 || evicted.length > 0
      const changed = pools.changes({ left, signal: left, now })
      const status = pools.status({ left })
      const result = { withdrawn, absent, outcomes, fallbackOutcomes, storedAs, evicted, status }
      const changes: DeviceChanges = {
        countsAcknowledged: true,
        ...(changed && { pools: changed }),
        ...(counts !== facts.counts && { counts }),
        ...(requestId !== undefined && {
          replay: { requestId, answer: encodeReplay(result), ts: now, forgetUpTo: now - REPLAY_RESET_MS },
        }),
      }
      return { kind: 'answer', answer: { result, replayed: false }, changes }
    })
}

/**
 * Versions and generations compare only within one epoch, so a request that names another epoch never matches.
 *
 * @throws {MatrixError} 409 DEV.LATCHKEY.M_POOL_CHANGED with the current key_pool.
 */
export function checkPreconditions(
  command: Pick<ResetCommand, 'ifEpoch' | 'ifGeneration' | 'ifVersion'>,
  status: PoolStatus,
): void {
  const changed = (what: string, expected: string | number, found: string | number): MatrixError =>
    new MatrixError(
      409,
      'DEV.LATCHKEY.M_POOL_CHANGED',
      `Expected ${what} ${expected}, found ${found}: nothing was changed. Read the pool and decide again.`,
      { 'dev.latchkey.key_pool': keyPoolOf(status) },
    )
  const { ifEpoch, ifGeneration, ifVersion } = command
  if (ifEpoch !== undefined && ifEpoch !== status.epoch) throw changed('epoch', ifEpoch, status.epoch)
  if (ifGeneration !== undefined && ifGeneration !== status.generation) {
    throw changed('generation', ifGeneration, status.generation)
  }
  if (ifVersion !== undefined && ifVersion !== status.version)
    throw changed('version', ifVersion, status.version)
}

type Withdrawn = { readonly withdrawn: KeyName[]; readonly absent: KeyName[] }

/** Withdraws the requested available keys, except those that the request uploads again. */
function withdraw(pools: DevicePools, { available, oneTimeKeys }: WantedFacts): Withdrawn {
  if (available !== 'all') return withdrawNamed(pools, available, oneTimeKeys)
  return { withdrawn: pools.all.flatMap((pool) => withdrawAll(pool, oneTimeKeys)), absent: [] }
}

function withdrawAll(pool: Pool, offered: readonly HashedKey[]): KeyName[] {
  const kept = pool.availableAmong(offered.filter((key) => key.algorithm === pool.algorithm))
  const keptPlaces = new Set(kept.map((key) => key.place))
  pool.clear('withdrawn', kept)
  const leaving = pool.listed.filter((key) => !keptPlaces.has(key.place))
  return leaving.map((key) => keyName(pool.algorithm, key.keyId))
}

function withdrawNamed(
  pools: DevicePools,
  names: readonly KeyName[],
  offered: readonly HashedKey[],
): Withdrawn {
  const withdrawn: KeyName[] = []
  const absent: KeyName[] = []
  for (const name of names) {
    const parsed = parseKeyName(name)
    const pool = parsed && pools.get(parsed.algorithm)
    const key = parsed && pool?.availableById(parsed.keyId)
    if (pool === undefined || key === undefined) absent.push(name)
    else if (!offered.some((other) => other.algorithm === pool.algorithm && other.hash === key.hash)) {
      pool.remove([key], 'withdrawn')
      withdrawn.push(name)
    }
  }
  return { withdrawn, absent }
}
