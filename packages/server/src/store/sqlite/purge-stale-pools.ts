/**
 * The purge of stale pools (key-pool.md "Rollback fence"): a device last used under a lower fence is purged before any
 * operation reads or writes its pools. Its issued keys stay visible, because it is the same installation.
 */
import type { DeviceId, UserId } from '@latchkey/protocol'
import { fencePurge } from '../../pool/purge.ts'
import type { DeviceRef } from '../../session.ts'
import { type Core, signalDevice } from './core.ts'
import type { Transaction } from './database.ts'
import type { DeviceState } from './pool-state.ts'
import { purgePools } from './purge-pools.ts'

/** Whether a device's pools must be purged before their next use. */
export function isStale(core: Core, ref: DeviceRef): boolean {
  const device = core.keys.byRef(ref)
  return device !== undefined && isBehind(core, device)
}

/** The pools of a device in memory, after the purge that they may need. */
export function freshPools(
  core: Core,
  tx: Transaction,
  device: DeviceState | undefined,
): DeviceState | undefined {
  if (device === undefined || !isBehind(core, device)) return device
  bringUpToDate(core, tx, device.deviceRef)
  return core.keys.byRef(device.deviceRef)
}

/** Settles a device's rows, and purges its pools if they are stale. */
export function bringUpToDate(core: Core, tx: Transaction, ref: DeviceRef): void {
  core.keys.settle(tx, ref)
  const device = core.keys.byRef(ref)
  if (device === undefined || !isBehind(core, device)) return
  purgePools(tx, ref, fencePurge(device.fence < core.fence.fallbackNumber), core.now())
  tx.run(`update devices set fence = ? where device_num = ?`, core.fence.number, ref)
  signalDevice(core, tx, ref)
  core.keys.forget(ref)
}

type Name = { readonly userId: UserId; readonly deviceId: DeviceId }

/** Devices purged per operation of the commit queue (about 10 ms). */
const DEVICES_AT_ONCE = 100

/**
 * Purges the stale devices of a claim of many, in batches, so that other operations do not wait for all of them.
 * Undefined: the claim need not wait.
 */
export function purgeStaleAhead(core: Core, devices: readonly Name[]): Promise<void> | undefined {
  if (devices.length <= DEVICES_AT_ONCE || core.fence.number === 0) return undefined
  return purgeInBatches(core, devices)
}

async function purgeInBatches(core: Core, devices: readonly Name[]): Promise<void> {
  for (let from = 0; from < devices.length; from += DEVICES_AT_ONCE) {
    const stale = devices
      .slice(from, from + DEVICES_AT_ONCE)
      .map(({ userId, deviceId }) => core.keys.byName(userId, deviceId))
      .filter((device) => device !== undefined && isBehind(core, device))
    if (stale.length > 0) {
      await core.queue.plain((tx) => {
        for (const device of stale) freshPools(core, tx, device)
      })
    }
  }
}

/** Purges a stale device in an operation of its own, for a reader. */
export function purgeStaleNow(core: Core, ref: DeviceRef): Promise<void> {
  return core.queue.plain((tx) => bringUpToDate(core, tx, ref))
}

function isBehind(core: Core, { fence }: Pick<DeviceState, 'fence'>): boolean {
  return fence < core.fence.number
}
