/**
 * The status of a device's pools, and its acknowledged counts (pool/wake.ts). A status comes from one statement, or
 * from one snapshot if digests must be read.
 */
import type { KeyMaterial } from '@latchkey/protocol'
import type { AlgorithmStatus, PoolStatus } from '../../pool/commands.ts'
import { keyHash } from '../../pool/key.ts'
import type { DeviceRef, Position } from '../../session.ts'
import type { AdvertisedCounts } from '../advertised-counts.ts'
import type { Queries, Snapshot } from './database.ts'
import { type DigestCache, type DigestedPool, snapshotDigests } from './digests.ts'

/** The columns of a pool that a status needs. */
export type StatusPool = DigestedPool & {
  readonly acknowledged: number
  /** The place of the last added key. */
  readonly last_seq: number
  readonly fallback_material: KeyMaterial | null
  readonly fallback_used: boolean
}

/** A device's pools at one moment, by algorithm. */
export type PoolSnapshot = {
  readonly epoch: string
  /** The device's own part of the version; claims change only the part of their pool. */
  readonly version: number
  readonly generation: number
  readonly pools: readonly StatusPool[]
}

/**
 * `stale`: the device was not used since the fence was raised, so its pools must be purged first
 * (purge-stale-pools.ts).
 */
export type ReadSnapshot = PoolSnapshot & { readonly stale: boolean }

/** The pools as an answer showed them (store/advertised-counts.ts). */
export type AdvertisedPools = readonly StatusPool[]

/** The part of the core that these functions use. */
type StatusCore = {
  readonly digests: DigestCache
  readonly advertised: AdvertisedCounts<AdvertisedPools>
}

/** An expression for the pools of `devices.device_num` as JSON, `StatusPool[]`, as part of a larger statement. */
export const POOLS_JSON = `(select coalesce(json_agg(json_build_object('pool_num', pool_num, 'algorithm', algorithm,
    'count', count, 'changes', changes, 'acknowledged', told, 'last_seq', last_seq,
    'fallback_material', fallback_material, 'fallback_used', fallback_used) order by algorithm), '[]')
  from pools where pools.device_num = devices.device_num)`

/** The status, with digests read from the same snapshot if they are not cached. */
export async function fullStatus(
  core: StatusCore,
  snapshot: Snapshot,
  device: PoolSnapshot,
): Promise<PoolStatus> {
  const { epoch, pools } = device
  const digests = await snapshotDigests(core.digests, snapshot, epoch, pools)
  for (const pool of pools) core.digests.keep(epoch, pool, digests.get(pool.pool_num) ?? '')
  return assembleStatus(device, (pool) => digests.get(pool.pool_num) ?? '')
}

/** The status, if all digests are cached. */
export function statusOf(device: PoolSnapshot, digests: DigestCache): PoolStatus | undefined {
  const { epoch, pools } = device
  const known = new Map(pools.map((pool) => [pool, digests.get(epoch, pool)]))
  if ([...known.values()].includes(undefined)) return undefined
  return assembleStatus(device, (pool) => known.get(pool) ?? '')
}

function assembleStatus(
  { epoch, version, generation, pools }: PoolSnapshot,
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

/** Notes the counts that an answer with this position advertises, unless none is below the acknowledged count. */
export function noteAdvertised(
  core: StatusCore,
  device: DeviceRef,
  position: Position,
  { pools }: PoolSnapshot,
): void {
  if (pools.every(({ count, acknowledged }) => count >= acknowledged)) return
  core.advertised.note(device, position, () => pools)
}

/**
 * Acknowledges the counts that an answer advertised, because the device presents its token. A wake since then may have
 * shown it lower counts. Keys added since then, through any process, were acknowledged by the answer to their upload,
 * so the older counts of that pool have no effect. The statement is pool/wake.ts `acknowledgedByToken`.
 */
export async function acknowledgeAdvertised(
  core: StatusCore & { readonly db: Queries },
  device: DeviceRef,
  position: Position,
): Promise<void> {
  const advertised = core.advertised.take(device, position)
  if (advertised === undefined) return
  await core.db.run(
    `with locked as (select pool_num from pools where device_num = $1 order by pool_num for update)
     update pools set told = advertised.count
     from locked join unnest($2::bigint[], $3::int[], $4::bigint[]) as advertised (pool_num, count, last_seq)
       using (pool_num)
     where pools.pool_num = locked.pool_num and pools.last_seq = advertised.last_seq and told > advertised.count`,
    device,
    advertised.map((pool) => pool.pool_num),
    advertised.map((pool) => pool.count),
    advertised.map((pool) => pool.last_seq),
  )
}
