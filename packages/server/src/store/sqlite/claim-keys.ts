/**
 * `/keys/claim`: issues keys. The hot path: per key one read from the read-ahead and one row of the issue log.
 * The rule is pool/claim.ts; the wake-ups are pool/wake.ts.
 */
import { chooseKey } from '../../pool/claim.ts'
import type { ClaimCommand, ClaimedKey, ClaimResult, ClaimTarget } from '../../pool/port.ts'
import { reachedLowWater } from '../../pool/wake.ts'
import { type Core, signalDevice } from './core.ts'

export function claimKeys(core: Core, command: ClaimCommand): Promise<ClaimResult> {
  return core.queue.plain(() => {
    const claimerNum = core.claimers.numOf(command.claimer)
    return command.targets.map((target) => claimOne(core, target, command.now, claimerNum))
  })
}

function claimOne(core: Core, target: ClaimTarget, now: number, claimerNum: number): ClaimedKey | undefined {
  const device = core.keys.byName(target.userId, target.deviceId)
  const pool = device?.pools.get(target.algorithm)
  if (device === undefined || pool === undefined) return undefined
  const { fallback } = pool
  switch (chooseKey({ available: pool.count > 0, hasFallback: fallback !== undefined }, target.spare)) {
    case 'one_time_key': {
      const key = core.keys.next(pool)
      if (key === undefined) return undefined
      core.keys.issue(device, pool, key, now, claimerNum)
      if (reachedLowWater(pool.told, pool.count)) {
        pool.told = pool.count
        device.signalPos = signalDevice(core, device.deviceRef)
      }
      return { keyId: key.key_id, json: key.json, fallback: false }
    }
    case 'fallback': {
      if (fallback === undefined) return undefined
      const first = core.keys.issueFallback(device, pool, fallback, now, claimerNum)
      if (first) device.signalPos = signalDevice(core, device.deviceRef)
      return { keyId: fallback.keyId, json: fallback.json, fallback: true }
    }
    case 'none':
      return undefined
  }
}
