/** The status of a device's pools, and the acknowledgement of their counts (pool/wake.ts). */
import { acknowledgedByToken } from '../../pool/wake.ts'
import type { PoolStatus } from '../../pool/commands.ts'
import type { DeviceRef, Position } from '../../session.ts'
import type { Core } from './core.ts'

const NO_POOLS = { version: 0, generation: 0, algorithms: [] } as const

/** The present status of a device's pools. */
export function poolStatus(core: Core, deviceRef: DeviceRef): PoolStatus {
  const device = core.keys.byRef(deviceRef)
  return device === undefined ? { epoch: core.fence.epoch, ...NO_POOLS } : core.keys.statusOf(device)
}

/** Notes the counts that an answer with this token carries, if any is below the acknowledged count. */
export function noteAdvertised(core: Core, deviceRef: DeviceRef, position: Position): void {
  const pools = core.keys.byRef(deviceRef)?.pools
  const known = [...(pools?.values() ?? [])]
  if (known.every(({ count, acknowledged }) => count >= acknowledged)) return
  core.advertised.note(deviceRef, position, () => new Map(known.map((pool) => [pool.algorithm, pool.count])))
}

/** The device presents a token, which acknowledges the counts of its answer, unless a later wake has shown it fewer. */
export function acknowledgeAdvertised(core: Core, deviceRef: DeviceRef, position: Position): void {
  const counts = core.advertised.take(deviceRef, position)
  if (counts === undefined) return
  for (const pool of core.keys.byRef(deviceRef)?.pools.values() ?? []) {
    pool.acknowledged = acknowledgedByToken(
      pool.acknowledged,
      counts.get(pool.algorithm) ?? pool.acknowledged,
    )
  }
}
