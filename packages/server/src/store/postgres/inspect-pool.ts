/**
 * `GET keys/pool`: a device's own pools, available keys whole and issued ones by pages (extensions.md), in one snapshot.
 * A page goes back through the logs of all pools side by side: by the key's place in its pool's log, then by pool.
 */
import type { KeyId } from '@latchkey/protocol'
import { invalidParam, unknownToken } from '../../matrix-error.ts'
import type { InspectedKey, PoolInspection } from '../../pool/port.ts'
import type { DeviceRef, Session } from '../../session.ts'
import { keyHash, materialOfJson, STATE_CODE } from '../key-row.ts'
import type { Core } from './core.ts'
import type { Queries } from './database.ts'
import { BelowFence, freshenDevices } from './freshen.ts'
import {
  type DeviceStanding,
  fullStatus,
  POOLS_JSON,
  type ReadStanding,
  type StatusPool,
} from './pool-status.ts'

export async function inspectPool(
  core: Core,
  session: Session,
  page: { readonly limit: number; readonly from?: string },
): Promise<PoolInspection> {
  const cursor = readCursor(page.from)
  for (;;) {
    try {
      return await core.db.transaction((tx) => inspect(core, tx, session, page.limit, cursor), 'snapshot')
    } catch (error) {
      if (!(error instanceof BelowFence)) throw error
      await freshenDevices(core, [session.deviceRef])
    }
  }
}

type KeyRow = {
  readonly pool_num: number
  readonly seq: number
  readonly key_id: KeyId
  readonly json: string
  readonly ts: number
}

type FallbackRow = {
  readonly pool_num: number
  readonly fallback_key_id: KeyId
  readonly issue_count: number
}

/** The last issued key of the page before: its place, and its pool. */
type Cursor = { readonly seq: number; readonly poolNum: number }

function readCursor(from: string | undefined): Cursor {
  if (from === undefined) return { seq: Number.MAX_SAFE_INTEGER, poolNum: 0 }
  const [, seq, poolNum] = /^(\d{1,15})-(\d{1,15})$/.exec(from) ?? []
  if (seq === undefined) throw invalidParam('from: expected the next_batch of an earlier answer.')
  return { seq: Number(seq), poolNum: Number(poolNum) }
}

async function inspect(
  core: Core,
  tx: Queries,
  session: Session,
  limit: number,
  cursor: Cursor,
): Promise<PoolInspection> {
  const device = session.deviceRef
  const standing = await readStanding(tx, session)
  const status = await fullStatus(core, tx, standing)
  const available = Map.groupBy(
    await availableKeys(tx, standing.pools, core.policy.claimOrder),
    (row) => row.pool_num,
  )
  const rows = await issuedKeys(tx, device, cursor, limit + 1)
  const page = rows.slice(0, limit)
  const last = page.at(-1)
  const issued = Map.groupBy(page, (row) => row.pool_num)
  const fallbacks = new Map((await fallbackKeys(tx, device)).map((row) => [row.pool_num, row]))
  const pools = standing.pools.map((pool) => {
    const fallback = fallbacks.get(pool.pool_num)
    const { fallback_material: material, fallback_used: used } = pool
    return {
      algorithm: pool.algorithm,
      available: (available.get(pool.pool_num) ?? []).map(inspected),
      issued: (issued.get(pool.pool_num) ?? []).map(inspected),
      ...(fallback &&
        material !== null && {
          fallback: {
            keyId: fallback.fallback_key_id,
            keyHash: keyHash(material),
            used,
            issueCount: fallback.issue_count,
          },
        }),
    }
  })
  return {
    status,
    pools,
    ...(rows.length > limit && last && { nextBatch: `${last.seq}-${last.pool_num}` }),
  }
}

/** @throws {MatrixError} 401 when the session has ended. @throws {BelowFence} */
async function readStanding(tx: Queries, { tokenHash, deviceRef }: Session): Promise<DeviceStanding> {
  const row = await tx.one<ReadStanding>(
    `select epoch, devices.fence < stream.fence as stale, version, generation, ${POOLS_JSON} as pools
     from access_tokens join devices using (device_num) cross join stream
     where token_hash = $1 and device_num = $2 and removed_ts is null`,
    tokenHash,
    deviceRef,
  )
  if (row === undefined) throw unknownToken()
  if (row.stale) throw new BelowFence([deviceRef])
  return row
}

function availableKeys(
  tx: Queries,
  pools: readonly StatusPool[],
  order: 'upload' | 'key_id',
): Promise<KeyRow[]> {
  return tx.all<KeyRow>(
    `select pool_num, seq, key_id, json, uploaded_ts as ts from pools join one_time_keys using (pool_num)
     where pool_num = any($1::bigint[]) and seq >= head and state = ${STATE_CODE.available}
     order by ${order === 'upload' ? 'seq' : 'key_id'}`,
    pools.map((pool) => pool.pool_num),
  )
}

/** The last uploaded first. Keys of a former installation, or with their details past the retention, are left out. */
function issuedKeys(
  tx: Queries,
  device: DeviceRef,
  { seq, poolNum }: Cursor,
  limit: number,
): Promise<KeyRow[]> {
  return tx.all<KeyRow>(
    `select pool_num, key.seq, key_id, json, issues.ts from pools
     cross join lateral (
       select seq, key_id, json from one_time_keys
       where one_time_keys.pool_num = pools.pool_num and seq >= first_seq and json is not null
         and (state = ${STATE_CODE.issued} or (state = ${STATE_CODE.available} and seq < head))
         and (seq < $2::bigint or (seq = $2::bigint and pools.pool_num < $3::bigint))
       order by seq desc limit $4) as key
     join issues using (pool_num, seq)
     where device_num = $1 order by seq desc, pool_num desc limit $4`,
    device,
    seq,
    poolNum,
    limit,
  )
}

function fallbackKeys(tx: Queries, device: DeviceRef): Promise<FallbackRow[]> {
  return tx.all<FallbackRow>(
    `select pool_num, fallback_key_id, fallback_issue_count as issue_count from pools
     where device_num = $1 and fallback_key_id is not null`,
    device,
  )
}

function inspected(row: KeyRow): InspectedKey {
  return { keyId: row.key_id, keyHash: keyHash(materialOfJson(row.json)), ts: row.ts }
}
