/**
 * What raising the fence leaves to do (key-pool.md "Rollback fence"): a device that was last touched under a lower one is
 * purged before anything reads or writes its pools. Its history stays visible: it is the same installation.
 */
import type { DeviceId, UserId } from '@latchkey/protocol'
import type { DeviceRef } from '../../session.ts'
import { type Core, signalDevice } from './core.ts'
import { bumpVersion, purgeKeys } from './pool-rows.ts'
import type { DeviceState } from './pool-state.ts'

/** Whether a device's pools are those of a former epoch. */
export function isUntouched(core: Core, ref: DeviceRef): boolean {
  const device = core.keys.byRef(ref)
  return device !== undefined && isBehind(core, device)
}

/** The pools in memory as they may be used. Inside a transaction. */
export function firstTouched(core: Core, device: DeviceState | undefined): DeviceState | undefined {
  if (device === undefined || !isBehind(core, device)) return device
  touchDevice(core, device.deviceRef)
  return core.keys.byRef(device.deviceRef)
}

/** Brings a device's rows up to date, for an operation that reads and writes the tables. Inside a transaction. */
export function touchDevice(core: Core, ref: DeviceRef): void {
  core.keys.settle(ref)
  const device = core.db.one<{ fence: number }>(
    `select fence from devices where device_num = ? and removed_ts is null`,
    ref,
  )
  if (device === undefined || !isBehind(core, device)) return
  purgeKeys(core, ref, core.now(), { fallbackKeys: device.fence < core.fence.fallbackNumber })
  bumpVersion(core, ref, true)
  core.db.run(`update devices set fence = ? where device_num = ?`, core.fence.number, ref)
  signalDevice(core, ref)
}

type Name = { readonly userId: UserId; readonly deviceId: DeviceId }

/** Of one operation of the commit queue: some ten milliseconds. */
const DEVICES_AT_ONCE = 100

/**
 * For who is going to touch many devices in one operation, which everyone else would have to wait for: some at a time,
 * each lot in an operation of its own. Undefined: there is nothing to wait for.
 */
export function touchAhead(core: Core, devices: readonly Name[]): Promise<void> | undefined {
  if (devices.length <= DEVICES_AT_ONCE || core.fence.number === 0) return undefined
  return touchInLots(core, devices)
}

async function touchInLots(core: Core, devices: readonly Name[]): Promise<void> {
  for (let from = 0; from < devices.length; from += DEVICES_AT_ONCE) {
    const behind = devices
      .slice(from, from + DEVICES_AT_ONCE)
      .map(({ userId, deviceId }) => core.keys.byName(userId, deviceId))
      .filter((device) => device !== undefined && isBehind(core, device))
    if (behind.length > 0) {
      await core.queue.plain(() => {
        for (const device of behind) firstTouched(core, device)
      })
    }
  }
}

/** For who only reads: in a transaction of its own. */
export function touchNow(core: Core, ref: DeviceRef): Promise<void> {
  return core.queue.plain(() => touchDevice(core, ref))
}

function isBehind(core: Core, { fence }: Pick<DeviceState, 'fence'>): boolean {
  return fence < core.fence.number
}
