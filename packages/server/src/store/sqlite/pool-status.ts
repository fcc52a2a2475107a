/** Reading a device's pools. An answer tells the device its counts, which wake-ups go by from then on (pool/wake.ts). */
import type { PoolStatus } from '../../pool/port.ts'
import type { DeviceRef } from '../../session.ts'
import type { Core } from './core.ts'

const NO_POOLS = { version: 0, generation: 0, algorithms: [] } as const

/** The pools as they stand now. */
export function poolStatus(core: Core, deviceRef: DeviceRef): PoolStatus {
  const device = core.keys.byRef(deviceRef)
  return device === undefined ? { epoch: core.keys.epoch, ...NO_POOLS } : core.keys.statusOf(device)
}

/** The device has been told its counts as they stand now. */
export function noteTold(core: Core, deviceRef: DeviceRef): void {
  for (const pool of core.keys.byRef(deviceRef)?.pools.values() ?? []) pool.told = pool.count
}

/** The same at the end of a transaction that changed them: what the device knows is kept durably. */
export function toldStatus(core: Core, deviceRef: DeviceRef): PoolStatus {
  core.keys.forget(deviceRef)
  core.db.run(`update pools set told = count where device_num = ? and told <> count`, deviceRef)
  return poolStatus(core, deviceRef)
}
