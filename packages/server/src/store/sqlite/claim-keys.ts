/**
 * `/keys/claim`: issues keys. The hot path: per key one read from the read-ahead and one row of the issue log. The
 * rules are pool/claim.ts and pool/depletion.ts; the wake-ups are pool/wake.ts. Budget used by a claim that is rolled
 * back is not refunded; it refills over time.
 */
import { chooseKey } from '../../pool/claim.ts'
import { budgetFor } from '../../pool/depletion.ts'
import type { ClaimCommand, ClaimedKey, ClaimResult, ClaimTarget } from '../../pool/commands.ts'
import { acknowledgedAfterIssue, reachedLowWater } from '../../pool/wake.ts'
import { type Core, signalDevice } from './core.ts'
import type { Transaction } from './database.ts'
import { freshPools, purgeStaleAhead } from './purge-stale-pools.ts'

export function claimKeys(core: Core, command: ClaimCommand): Promise<ClaimResult> {
  const purged = purgeStaleAhead(core, command.targets)
  return purged === undefined ? claimNow(core, command) : purged.then(() => claimNow(core, command))
}

function claimNow(core: Core, command: ClaimCommand): Promise<ClaimResult> {
  return core.queue.plain((tx) => {
    const claimerNum = core.claimers.numOf(tx, command.claimer.name, command.now)
    return command.targets.map((target) => claimOne(core, tx, command, target, claimerNum))
  })
}

function claimOne(
  core: Core,
  tx: Transaction,
  { claimer, now }: ClaimCommand,
  target: ClaimTarget,
  claimerNum: number,
): ClaimedKey | null | undefined {
  const device = freshPools(core, tx, core.keys.byName(target.userId, target.deviceId))
  const pool = device?.pools.get(target.algorithm)
  if (device === undefined || pool === undefined) return undefined
  const { fallback } = pool
  const kind = chooseKey(
    { available: pool.count, filled: pool.filled, hasFallback: fallback !== undefined },
    budgetFor(core.depletion, claimer, device.deviceRef, now),
  )
  switch (kind) {
    case 'one_time_key': {
      const key = core.keys.next(pool)
      if (key === undefined) return undefined
      core.keys.issue(tx, device, pool, key, now, claimerNum)
      if (reachedLowWater(pool.acknowledged, pool.count)) {
        pool.acknowledged = acknowledgedAfterIssue(pool.acknowledged, pool.count)
        device.signalPos = signalDevice(core, tx, device.deviceRef)
      }
      return { keyId: key.key_id, json: key.json, fallback: false, rateLimited: false }
    }
    case 'fallback':
    case 'rate_limited': {
      if (fallback === undefined) return undefined
      const first = core.keys.issueFallback(tx, device, pool, fallback, now, claimerNum)
      if (first) device.signalPos = signalDevice(core, tx, device.deviceRef)
      return {
        keyId: fallback.keyId,
        json: fallback.json,
        fallback: true,
        rateLimited: kind === 'rate_limited',
      }
    }
    case 'withheld':
      return null
    case 'none':
      return undefined
  }
}
