/** Reading a device's pools for an answer, which at the same time tells the device its counts (pool/wake.ts). */
import type { PoolStatus } from '../../pool/port.ts'
import type { DeviceRef } from '../../session.ts'
import type { Core } from './core.ts'

const NO_POOLS = { version: 0, generation: 0, algorithms: [] } as const

/** The pools as they stand now; the device is about to be told. */
export function poolStatus(core: Core, deviceRef: DeviceRef): PoolStatus {
  const device = core.keys.byRef(deviceRef)
  if (device === undefined) return { epoch: core.keys.epoch, ...NO_POOLS }
  for (const pool of device.pools.values()) pool.told = pool.count
  return core.keys.statusOf(device)
}

/** The same at the end of a transaction that changed them: what the device knows is kept durably. */
export function toldStatus(core: Core, deviceRef: DeviceRef): PoolStatus {
  core.keys.forget(deviceRef)
  core.db.run(`update pools set told = count where device_num = ? and told <> count`, deviceRef)
  return poolStatus(core, deviceRef)
}
