/**
 * `GET keys/pool`: the pools of a device, with all available keys and a page of issued keys (pool/issued-pages.ts),
 * from one snapshot.
 */
import type { KeyId } from '@latchkey/protocol'
import { unknownToken } from '../../matrix-error.ts'
import type { InspectedKey, PoolInspection } from '../../pool/commands.ts'
import { type IssuedCursor, pagesFrom, readCursor, writeCursor } from '../../pool/issued-pages.ts'
import { keyHash, materialOfJson } from '../../pool/key.ts'
import type { DeviceRef, Session } from '../../session.ts'
import { STATE_CODE } from '../key-row.ts'
import type { Core } from './core.ts'
import type { Snapshot } from './database.ts'
import { purgeStaleDevices, StalePoolsError } from './purge-stale-pools.ts'
import {
  fullStatus,
  POOLS_JSON,
  type PoolSnapshot,
  type ReadSnapshot,
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
      return await core.db.snapshot((snapshot) => inspect(core, snapshot, session, page.limit, cursor))
    } catch (error) {
      if (!(error instanceof StalePoolsError)) throw error
      await purgeStaleDevices(core, [session.deviceRef])
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

async function inspect(
  core: Core,
  snapshot: Snapshot,
  session: Session,
  limit: number,
  cursor: IssuedCursor | undefined,
): Promise<PoolInspection> {
  const poolSnapshot = await readPools(snapshot, session)
  const status = await fullStatus(core, snapshot, poolSnapshot)
  const available = Map.groupBy(
    await availableKeys(snapshot, poolSnapshot.pools, core.policy.claimOrder),
    (row) => row.pool_num,
  )
  const rows = await issuedKeys(
    snapshot,
    poolSnapshot.pools.map((pool) => pool.pool_num),
    cursor,
    limit + 1,
  )
  const page = rows.slice(0, limit)
  const last = page.at(-1)
  const issued = Map.groupBy(page, (row) => row.pool_num)
  const fallbacks = new Map(
    (await fallbackKeys(snapshot, session.deviceRef)).map((row) => [row.pool_num, row]),
  )
  const pools = poolSnapshot.pools.map((pool) => {
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
    ...(rows.length > limit && last && { nextBatch: writeCursor({ pool: last.pool_num, place: last.seq }) }),
  }
}

/** @throws {MatrixError} 401 when the session has ended. @throws {StalePoolsError} */
async function readPools(snapshot: Snapshot, { tokenHash, deviceRef }: Session): Promise<PoolSnapshot> {
  const row = await snapshot.one<ReadSnapshot>(
    `select epoch, devices.fence < stream.fence as stale, version, generation, ${POOLS_JSON} as pools
     from access_tokens join devices using (device_num) cross join stream
     where token_hash = $1 and device_num = $2 and removed_ts is null`,
    tokenHash,
    deviceRef,
  )
  if (row === undefined) throw unknownToken()
  if (row.stale) throw new StalePoolsError([deviceRef])
  return row
}

function availableKeys(
  snapshot: Snapshot,
  pools: readonly StatusPool[],
  order: 'upload' | 'key_id',
): Promise<KeyRow[]> {
  return snapshot.all<KeyRow>(
    `select pool_num, seq, key_id, json, uploaded_ts as ts from pools join one_time_keys using (pool_num)
     where pool_num = any($1::bigint[]) and seq >= head and state = ${STATE_CODE.available}
     order by ${order === 'upload' ? 'seq' : 'key_id'}`,
    pools.map((pool) => pool.pool_num),
  )
}

/** Issued keys, without those of a former installation and those whose details are past the retention. */
function issuedKeys(
  snapshot: Snapshot,
  pools: readonly number[],
  cursor: IssuedCursor | undefined,
  limit: number,
): Promise<KeyRow[]> {
  const pages = pagesFrom(pools, cursor)
  return snapshot.all<KeyRow>(
    `select pool_num, key.seq, key_id, json, issues.ts
     from unnest($1::bigint[], $2::bigint[]) with ordinality as page (num, below, i)
     join pools on pool_num = num
     cross join lateral (
       select seq, key_id, json from one_time_keys
       where one_time_keys.pool_num = pools.pool_num and seq >= first_seq and seq < below and json is not null
         and (state = ${STATE_CODE.issued} or (state = ${STATE_CODE.available} and seq < head))
       order by seq desc limit $3) as key
     join issues using (pool_num, seq)
     order by i, seq desc limit $3`,
    pages.map(({ pool }) => pool),
    pages.map(({ place }) => place),
    limit,
  )
}

function fallbackKeys(snapshot: Snapshot, device: DeviceRef): Promise<FallbackRow[]> {
  return snapshot.all<FallbackRow>(
    `select pool_num, fallback_key_id, fallback_issue_count as issue_count from pools
     where device_num = $1 and fallback_key_id is not null`,
    device,
  )
}

function inspected(row: KeyRow): InspectedKey {
  return { keyId: row.key_id, keyHash: keyHash(materialOfJson(row.json)), ts: row.ts }
}
