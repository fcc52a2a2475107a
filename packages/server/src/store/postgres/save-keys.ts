/**
 * The end of an upload or a reset: what changed in memory is written, and the answer's status is made of it. The status
 * needs no reading: the device and its pools are locked.
 */
import type { PoolStatus } from '../../pool/port.ts'
import type { Session } from '../../session.ts'
import type { Core, Write } from './core.ts'
import type { Queries } from './database.ts'
import { readDigests } from './digests.ts'
import { type Pool, savePools } from './pool-rows.ts'
import { assembleStatus } from './pool-status.ts'
import type { DeviceRow } from './session-device.ts'
import type { DayCount } from './store-keys.ts'

export type SavedKeys = {
  readonly status: PoolStatus
  /** To be called after the commit: what is known of the pools from then on. */
  readonly remember: () => void
}

/** @param left keys left other than by being issued */
export async function saveKeys(
  core: Core,
  tx: Write,
  { session, now }: { readonly session: Session; readonly now: number },
  device: DeviceRow,
  {
    pools,
    day,
    changed,
    left,
  }: {
    readonly pools: readonly Pool[]
    readonly day: DayCount
    readonly changed: boolean
    readonly left: boolean
  },
): Promise<SavedKeys> {
  const version = device.version + (changed ? 1 : 0)
  const generation = device.generation + (left ? 1 : 0)
  const { epoch } = tx.standing
  const isDeviceChanged = changed || left || day !== device
  const saved = {
    device_num: session.deviceRef,
    version,
    generation,
    day_start_ts: day.day_start_ts,
    day_stored: day.day_stored,
  }
  await savePools(tx, pools, isDeviceChanged ? saved : undefined, now)
  const digests = await digestsOf(core, tx, epoch, pools)
  const standing = { epoch, version, generation, pools: pools.map(({ row }) => row) }
  return {
    status: assembleStatus(standing, (pool) => digests.get(pool.pool_num) ?? ''),
    remember() {
      core.offers.forget(session.deviceRef)
      for (const { row } of pools) core.digests.keep(epoch, row, digests.get(row.pool_num) ?? '')
    },
  }
}

async function digestsOf(
  core: Core,
  tx: Queries,
  epoch: string,
  pools: readonly Pool[],
): Promise<Map<number, string>> {
  const digests = new Map<number, string>()
  const unread: Pool[] = []
  for (const pool of pools) {
    const before = core.digests.get(epoch, pool.before)
    if (before === undefined && !pool.isLoaded) unread.push(pool)
    else digests.set(pool.row.pool_num, pool.digest(before))
  }
  const read = await readDigests(
    tx,
    unread.map(({ row }) => row),
  )
  for (const [num, digest] of read) digests.set(num, digest)
  return digests
}
