/** Reading a device's pools, and which of their counts the device knows (pool/wake.ts). */
import type { PoolStatus } from '../../pool/commands.ts'
import type { DeviceRef, Position } from '../../session.ts'
import type { Core } from './core.ts'

const NO_POOLS = { version: 0, generation: 0, algorithms: [] } as const

/** The pools as they are now. */
export function poolStatus(core: Core, deviceRef: DeviceRef): PoolStatus {
  const device = core.keys.byRef(deviceRef)
  return device === undefined ? { epoch: core.fence.epoch, ...NO_POOLS } : core.keys.statusOf(device)
}

/** An answer with this token carries the counts as they are now. Noted only where the device knows of more. */
export function noteAdvertised(core: Core, deviceRef: DeviceRef, position: Position): void {
  const pools = core.keys.byRef(deviceRef)?.pools
  const known = [...(pools?.values() ?? [])]
  if (known.every(({ count, acknowledged }) => count >= acknowledged)) return
  core.advertised.note(deviceRef, position, () => new Map(known.map((pool) => [pool.algorithm, pool.count])))
}

/** The device presents a token: it knows the counts of that answer. A wake since then may have shown it fewer. */
export function acknowledgeAdvertised(core: Core, deviceRef: DeviceRef, position: Position): void {
  const counts = core.advertised.take(deviceRef, position)
  if (counts === undefined) return
  for (const pool of core.keys.byRef(deviceRef)?.pools.values() ?? []) {
    pool.acknowledged = Math.min(pool.acknowledged, counts.get(pool.algorithm) ?? pool.acknowledged)
  }
}
