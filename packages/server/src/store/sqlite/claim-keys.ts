/**
 * `/keys/claim`: issues keys. The hot path: per key one read from the read-ahead and one row of the issue log.
 * The rules are pool/claim.ts and pool/depletion.ts; the wake-ups are pool/wake.ts. What a claim took of its budget
 * stays taken if the transaction is undone: it comes back by itself.
 */
import { chooseKey } from '../../pool/claim.ts'
import type { ClaimCommand, ClaimedKey, ClaimResult, ClaimTarget } from '../../pool/port.ts'
import { reachedLowWater } from '../../pool/wake.ts'
import { type Core, signalDevice } from './core.ts'
import { firstTouched, touchAhead } from './first-touch.ts'

export function claimKeys(core: Core, command: ClaimCommand): Promise<ClaimResult> {
  const touched = touchAhead(core, command.targets)
  return touched === undefined ? claimNow(core, command) : touched.then(() => claimNow(core, command))
}

function claimNow(core: Core, command: ClaimCommand): Promise<ClaimResult> {
  return core.queue.plain(() => {
    const claimerNum = core.claimers.numOf(command.claimer.name)
    return command.targets.map((target) => claimOne(core, command, target, claimerNum))
  })
}

function claimOne(
  core: Core,
  { claimer, now }: ClaimCommand,
  target: ClaimTarget,
  claimerNum: number,
): ClaimedKey | undefined {
  const device = firstTouched(core, core.keys.byName(target.userId, target.deviceId))
  const pool = device?.pools.get(target.algorithm)
  if (device === undefined || pool === undefined) return undefined
  const { fallback } = pool
  const takesBudget = (): boolean => core.depletion?.takesOneTimeKey(claimer, device.deviceRef, now) ?? true
  const kind = chooseKey({ available: pool.count > 0, hasFallback: fallback !== undefined }, takesBudget)
  switch (kind) {
    case 'one_time_key': {
      const key = core.keys.next(pool)
      if (key === undefined) return undefined
      core.keys.issue(device, pool, key, now, claimerNum)
      if (reachedLowWater(pool.told, pool.count)) {
        pool.told = pool.count
        device.signalPos = signalDevice(core, device.deviceRef)
      }
      return { keyId: key.key_id, json: key.json, fallback: false, spared: false }
    }
    case 'fallback':
    case 'spared': {
      if (fallback === undefined) return undefined
      const first = core.keys.issueFallback(device, pool, fallback, now, claimerNum)
      if (first) device.signalPos = signalDevice(core, device.deviceRef)
      return { keyId: fallback.keyId, json: fallback.json, fallback: true, spared: kind === 'spared' }
    }
    case 'none':
      return undefined
  }
}
