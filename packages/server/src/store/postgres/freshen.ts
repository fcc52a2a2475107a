/**
 * First touch after the fence was raised: the pools of a device that was last touched below the fence are purged before
 * anything reads or writes them, because keys may have been issued of which this database knows nothing any more. The
 * memory stays. Fallback keys go only if what was lost is long enough (fence/judge.ts).
 */
import type { DeviceRef } from '../../session.ts'
import { type Core, type Write, write } from './core.ts'
import { purgePools } from './pool-rows.ts'

/** Devices that nobody has touched since the fence was raised. Whoever found them there freshens them and begins anew. */
export class BelowFence extends Error {
  readonly devices: readonly DeviceRef[]

  constructor(devices: readonly DeviceRef[]) {
    super('devices are below the fence')
    this.devices = devices
  }
}

/** Of one transaction: some ten thousand keys, and what is done stays done if the rest is not. */
const DEVICES_AT_ONCE = 100

/** Locks these devices and purges those that are below the fence, in transactions of their own. */
export async function freshenDevices(core: Core, devices: readonly DeviceRef[]): Promise<void> {
  for (let from = 0; from < devices.length; from += DEVICES_AT_ONCE) {
    const some = devices.slice(from, from + DEVICES_AT_ONCE)
    await write(core, async (tx) => {
      const stale = await tx.all<StaleDevice>(
        `select device_num, fence from devices where device_num = any($1::bigint[]) and fence < $2
         order by device_num for no key update`,
        some,
        tx.standing.fence,
      )
      await freshenLocked(tx, stale, core.now())
    })
  }
}

export type StaleDevice = { readonly device_num: DeviceRef; readonly fence: number }

/** Purges locked devices that are below the fence. */
export async function freshenLocked(tx: Write, stale: readonly StaleDevice[], now: number): Promise<void> {
  if (stale.length === 0) return
  const devices = stale.map((device) => device.device_num)
  const { fence, fallback_fence: fallbackFence } = tx.standing
  await purgePools(tx, devices, now, {
    keepsHistory: true,
    fallbackOf: stale.filter((device) => device.fence < fallbackFence).map((device) => device.device_num),
  })
  await tx.run(
    `update devices set fence = $2, version = version + 1, generation = generation + 1
     where device_num = any($1::bigint[])`,
    devices,
    fence,
  )
  for (const device of devices) tx.changes.signal(device)
}
