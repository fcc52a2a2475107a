/**
 * The purge of stale pools after a raise of the fence (key-pool.md "Rollback fence"): the pools of a device last used
 * under a lower fence are purged before they are read or written, because this database may have lost the record of
 * issued keys. Issued keys stay visible: it is the same installation.
 */
import { fencePurge } from '../../pool/purge.ts'
import type { DeviceRef } from '../../session.ts'
import { type Core, type Write, write } from './core.ts'
import type { LockedDeviceRef } from './locks.ts'
import { lockPoolsOf, purgePools } from './purge-pools.ts'

/** Devices that were not used since the fence was raised. The caller purges their pools and repeats its operation. */
export class StalePoolsError extends Error {
  readonly devices: readonly DeviceRef[]

  constructor(devices: readonly DeviceRef[]) {
    super('devices are below the fence')
    this.devices = devices
  }
}

/** Devices purged in one transaction: about 10 000 keys. Committed purges stay if a later one fails. */
const DEVICES_AT_ONCE = 100

/** Locks these devices and purges those that are below the fence, in transactions of their own. */
export async function purgeStaleDevices(core: Core, devices: readonly DeviceRef[]): Promise<void> {
  for (let from = 0; from < devices.length; from += DEVICES_AT_ONCE) {
    const some = devices.slice(from, from + DEVICES_AT_ONCE)
    await write(core, async (tx) => {
      const stale = await tx.all<FencedDevice>(
        `select device_num, fence from devices where device_num = any($1::bigint[]) and fence < $2
         order by device_num for no key update`,
        some,
        tx.fence.number,
      )
      await purgeStaleLocked(tx, stale, core.now())
    })
  }
}

/** A device, and the fence under which its pools were last changed. */
export type FencedDevice = { readonly device_num: LockedDeviceRef; readonly fence: number }

/** Purges the pools of devices below the fence. */
export async function purgeStaleLocked(
  tx: Write,
  stale: readonly FencedDevice[],
  now: number,
): Promise<void> {
  const { number: fence, fallbackNumber: fallbackFence } = tx.fence
  // All pools in one order, before the groups: claims lock pools without their devices.
  await lockPoolsOf(
    tx,
    stale.map((device) => device.device_num),
  )
  for (const drops of [true, false]) {
    const devices = stale
      .filter((device) => device.fence < fallbackFence === drops)
      .map((device) => device.device_num)
    if (devices.length === 0) continue
    await purgePools(tx, devices, fencePurge(drops), now)
    await tx.run(`update devices set fence = $2 where device_num = any($1::bigint[])`, devices, fence)
    for (const device of devices) tx.changes.signal(device)
  }
}
