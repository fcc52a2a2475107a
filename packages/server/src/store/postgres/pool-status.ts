/**
 * Reading a device's pools, and which of their counts the device knows (pool/wake.ts). Everything of one status comes from
 * one statement, or from one snapshot where digests have to be read.
 */
import type { KeyMaterial } from '@latchkey/protocol'
import type { AlgorithmStatus, PoolStatus } from '../../pool/commands.ts'
import { keyHash } from '../../pool/key.ts'
import type { DeviceRef, Position } from '../../session.ts'
import type { AdvertisedCounts } from '../advertised-counts.ts'
import type { Queries } from './database.ts'
import { type DigestCache, type DigestedPool, digestsOf } from './digests.ts'

/** The columns of a pool that a status needs. */
export type StatusPool = DigestedPool & {
  readonly told: number
  /** The place of the last key that was ever added. */
  readonly last_seq: number
  readonly fallback_material: KeyMaterial | null
  readonly fallback_used: boolean
}

/** A device's pools at one moment, by algorithm. */
export type PoolSnapshot = {
  readonly epoch: string
  /** The device's own part of the version: it grows with uploads and resets, not with claims. */
  readonly version: number
  readonly generation: number
  readonly pools: readonly StatusPool[]
}

/** `stale`: the device was not used since the fence was raised; its pools have to be purged first (purge-stale-pools.ts). */
export type ReadSnapshot = PoolSnapshot & { readonly stale: boolean }

/** The pools as an answer showed them (store/advertised-counts.ts). */
export type AdvertisedPools = readonly StatusPool[]

/** What of the core these functions use. */
type StatusCore = {
  readonly digests: DigestCache
  readonly advertised: AdvertisedCounts<AdvertisedPools>
}

/**
 * An expression for the pools of `devices.device_num` as JSON, `StatusPool[]`, to be read in one statement with whatever
 * else an answer says.
 */
export const POOLS_JSON = `(select coalesce(json_agg(json_build_object('pool_num', pool_num, 'algorithm', algorithm,
    'count', count, 'changes', changes, 'told', told, 'last_seq', last_seq,
    'fallback_material', fallback_material, 'fallback_used', fallback_used) order by algorithm), '[]')
  from pools where pools.device_num = devices.device_num)`

/** The status in a snapshot: digests that are not known are read. */
export async function fullStatus(core: StatusCore, tx: Queries, standing: PoolSnapshot): Promise<PoolStatus> {
  const { epoch, pools } = standing
  const digests = await digestsOf(core.digests, tx, epoch, pools)
  for (const pool of pools) core.digests.keep(epoch, pool, digests.get(pool.pool_num) ?? '')
  return assembleStatus(standing, (pool) => digests.get(pool.pool_num) ?? '')
}

/** The status, if every digest is known. */
export function statusOf(standing: PoolSnapshot, digests: DigestCache): PoolStatus | undefined {
  const { epoch, pools } = standing
  const known = new Map(pools.map((pool) => [pool, digests.get(epoch, pool)]))
  if ([...known.values()].includes(undefined)) return undefined
  return assembleStatus(standing, (pool) => known.get(pool) ?? '')
}

/** The status of pools whose digests are known. */
export function assembleStatus(
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

/** An answer with this token carries these counts. Noted only where the device knows of more. */
export function noteAdvertised(
  core: StatusCore,
  device: DeviceRef,
  position: Position,
  { pools }: PoolSnapshot,
): void {
  if (pools.every(({ count, told }) => count >= told)) return
  core.advertised.note(device, position, () => pools)
}

/**
 * The device presents a token: it knows the counts of that answer. A wake since then may have shown it fewer; keys added
 * since then, through any process, were acknowledged by that upload's answer, and the older counts say nothing.
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
