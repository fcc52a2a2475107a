/**
 * Reading a device's pools, and what the device is told by it: wake-ups go by that from then on (pool/wake.ts).
 * Everything of one status comes from one statement, or from one snapshot where digests have to be read.
 */
import type { KeyMaterial } from '@latchkey/protocol'
import type { AlgorithmStatus, PoolStatus } from '../../pool/port.ts'
import type { DeviceRef, Position } from '../../session.ts'
import { keyHash } from '../key-row.ts'
import type { Core } from './core.ts'
import type { Queries } from './database.ts'
import { type DigestCache, type DigestedPool, readDigests } from './digests.ts'

/** A pool, as far as a status is about it. */
export type StatusPool = DigestedPool & {
  readonly told: number
  /** The place of the last key that was ever added. */
  readonly last_seq: number
  readonly fallback_material: KeyMaterial | null
  readonly fallback_used: boolean
}

/** A device's pools as one statement shows them, by algorithm. */
export type DeviceStanding = {
  readonly epoch: string
  /** The device's own part of the version: it grows with uploads and resets, not with claims. */
  readonly version: number
  readonly generation: number
  readonly pools: readonly StatusPool[]
}

/** `stale`: nobody touched the device since the fence was raised (freshen.ts), and its pools are not to be relied on. */
export type ReadStanding = DeviceStanding & { readonly stale: boolean }

/** What an answer offers to tell (store/offers.ts): the pools as it showed them. */
export type Offer = readonly StatusPool[]

/**
 * An expression for the pools of `devices.device_num` as JSON, `StatusPool[]`, to be read in one statement with whatever
 * else an answer says.
 */
export const POOLS_JSON = `(select coalesce(json_agg(json_build_object('pool_num', pool_num, 'algorithm', algorithm,
    'count', count, 'changes', changes, 'told', told, 'last_seq', last_seq,
    'fallback_material', fallback_material, 'fallback_used', fallback_used) order by algorithm), '[]')
  from pools where pools.device_num = devices.device_num)`

/** The status in a snapshot, or under the device's lock: with the digests that are not known. */
export async function fullStatus(core: Core, tx: Queries, standing: DeviceStanding): Promise<PoolStatus> {
  const { epoch, pools } = standing
  const unknown = pools.filter((pool) => core.digests.get(epoch, pool) === undefined)
  const read = await readDigests(tx, unknown)
  for (const pool of unknown) core.digests.keep(epoch, pool, read.get(pool.pool_num) ?? '')
  return assembleStatus(standing, (pool) => read.get(pool.pool_num) ?? core.digests.get(epoch, pool) ?? '')
}

/** The status, if every digest is known. */
export function statusOf(standing: DeviceStanding, digests: DigestCache): PoolStatus | undefined {
  const { epoch, pools } = standing
  const known = new Map(pools.map((pool) => [pool, digests.get(epoch, pool)]))
  if ([...known.values()].includes(undefined)) return undefined
  return assembleStatus(standing, (pool) => known.get(pool) ?? '')
}

/** The status of pools whose digests are known. */
export function assembleStatus(
  { epoch, version, generation, pools }: DeviceStanding,
  digest: (pool: StatusPool) => string,
): PoolStatus {
  return {
    epoch,
    version: pools.reduce((sum, pool) => sum + pool.changes, version),
    generation,
    algorithms: pools.map((pool): AlgorithmStatus => {
      const { algorithm, count, fallback_material: material, fallback_used: used } = pool
      return {
        algorithm,
        count,
        digest: digest(pool),
        ...(material !== null && { fallback: { keyHash: keyHash(material), used } }),
      }
    }),
  }
}

/** An answer with this token carries these counts. Noted only where the device knows of more. */
export function offerCounts(
  core: Core,
  device: DeviceRef,
  position: Position,
  { pools }: DeviceStanding,
): void {
  if (pools.every(({ count, told }) => count >= told)) return
  core.offers.make(device, position, () => pools)
}

/**
 * The device presents a token: what that answer carried, it knows. A wake since then may have told it of fewer; keys
 * added since then, through whatever process, were told by that answer, and the offer counts for nothing.
 */
export async function noteTold(core: Core, device: DeviceRef, position: Position): Promise<void> {
  const offer = core.offers.take(device, position)
  if (offer === undefined) return
  await core.db.run(
    `with locked as (select pool_num from pools where device_num = $1 order by pool_num for update)
     update pools set told = offered.count
     from locked join unnest($2::bigint[], $3::int[], $4::bigint[]) as offered (pool_num, count, last_seq) using (pool_num)
     where pools.pool_num = locked.pool_num and pools.last_seq = offered.last_seq and told > offered.count`,
    device,
    offer.map((pool) => pool.pool_num),
    offer.map((pool) => pool.count),
    offer.map((pool) => pool.last_seq),
  )
}
