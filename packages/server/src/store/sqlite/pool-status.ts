/** Reading a device's pools, and what the device is told by it: wake-ups go by that from then on (pool/wake.ts). */
import type { PoolStatus } from '../../pool/port.ts'
import type { DeviceRef, Position } from '../../session.ts'
import type { Core } from './core.ts'

const NO_POOLS = { version: 0, generation: 0, algorithms: [] } as const

/** The pools as they stand now. */
export function poolStatus(core: Core, deviceRef: DeviceRef): PoolStatus {
  const device = core.keys.byRef(deviceRef)
  return device === undefined ? { epoch: core.fence.epoch, ...NO_POOLS } : core.keys.statusOf(device)
}

/** An answer with this token carries the counts as they stand now. Noted only where the device knows of more. */
export function offerCounts(core: Core, deviceRef: DeviceRef, position: Position): void {
  const pools = core.keys.byRef(deviceRef)?.pools
  const known = [...(pools?.values() ?? [])]
  if (known.every(({ count, told }) => count >= told)) return
  core.offers.make(deviceRef, position, () => new Map(known.map((pool) => [pool.algorithm, pool.count])))
}

/** The device presents a token: what that answer carried, it knows. A wake since then may have told it of fewer. */
export function noteTold(core: Core, deviceRef: DeviceRef, position: Position): void {
  const counts = core.offers.take(deviceRef, position)
  if (counts === undefined) return
  for (const pool of core.keys.byRef(deviceRef)?.pools.values() ?? []) {
    pool.told = Math.min(pool.told, counts.get(pool.algorithm) ?? pool.told)
  }
}

/** The answer of a transaction that changed the counts tells them at once: what the device knows is kept durably. */
export function toldStatus(core: Core, deviceRef: DeviceRef): PoolStatus {
  core.offers.forget(deviceRef)
  core.keys.forget(deviceRef)
  core.db.run(`update pools set told = count where device_num = ? and told <> count`, deviceRef)
  return poolStatus(core, deviceRef)
}
