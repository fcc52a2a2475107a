/**
 * The purge that a raised fence leaves to do (key-pool.md "Rollback fence"): the pools of a device last used under a lower
 * fence are purged before anything reads or writes them, because keys may have been issued of which this database knows
 * nothing. Its issued keys stay visible: it is the same installation.
 */
import { fencePurge } from '../../pool/purge.ts'
import type { DeviceRef } from '../../session.ts'
import { type Core, type Write, write } from './core.ts'
import { lockPoolsOf, purgePools } from './purge-pools.ts'

/** Devices that were not used since the fence was raised. The caller purges them and begins again. */
export class StalePoolsError extends Error {
  readonly devices: readonly DeviceRef[]

  constructor(devices: readonly DeviceRef[]) {
    super('devices are below the fence')
    this.devices = devices
  }
}

/** Devices purged in one transaction: some ten thousand keys. What is done stays done if the rest fails. */
const DEVICES_AT_ONCE = 100

/** Locks these devices and purges those that are below the fence, in transactions of their own. */
export async function purgeStaleDevices(core: Core, devices: readonly DeviceRef[]): Promise<void> {
  for (let from = 0; from < devices.length; from += DEVICES_AT_ONCE) {
    const some = devices.slice(from, from + DEVICES_AT_ONCE)
    await write(core, async (tx) => {
      const stale = await tx.all<StaleDevice>(
        `select device_num, fence from devices where device_num = any($1::bigint[]) and fence < $2
         order by device_num for no key update`,
        some,
        tx.standing.fence,
      )
      await purgeStaleLocked(tx, stale, core.now())
    })
  }
}

export type StaleDevice = { readonly device_num: DeviceRef; readonly fence: number }

/** Purges locked devices that are below the fence. */
export async function purgeStaleLocked(tx: Write, stale: readonly StaleDevice[], now: number): Promise<void> {
  const { fence, fallback_fence: fallbackFence } = tx.standing
  // In the order of all pools, before either group: a claim locks pools without their devices.
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
