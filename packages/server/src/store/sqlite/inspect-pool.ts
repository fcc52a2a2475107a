/** `GET keys/pool`: a device's own pools, available keys whole and issued ones by pages (pool/issued-pages.ts). */
import type { KeyId } from '@latchkey/protocol'
import type { InspectedKey, PoolInspection } from '../../pool/commands.ts'
import { type IssuedCursor, pagesFrom, readCursor, writeCursor } from '../../pool/issued-pages.ts'
import { keyHash, materialOfJson } from '../../pool/key.ts'
import type { Session } from '../../session.ts'
import { STATE_CODE } from '../key-row.ts'
import type { Core } from './core.ts'
import type { Transaction } from './database.ts'
import type { PoolState } from './pool-state.ts'
import { bringUpToDate } from './purge-stale-pools.ts'
import { proveSession } from './session-device.ts'

export async function inspectPool(
  core: Core,
  session: Session,
  page: { readonly limit: number; readonly from?: string },
): Promise<PoolInspection> {
  const cursor = readCursor(page.from)
  return core.queue.guarded((tx) => inspect(core, tx, session, page.limit, cursor), {
    before: (tx) => bringUpToDate(core, tx, session.deviceRef),
  })
}

type KeyRow = { readonly num: number; readonly key_id: KeyId; readonly json: string; readonly ts: number }

function inspect(
  core: Core,
  tx: Transaction,
  session: Session,
  limit: number,
  cursor: IssuedCursor | undefined,
): PoolInspection {
  proveSession(tx, session)
  const state = core.keys.existing(session.deviceRef)
  const pools = [...state.pools.values()]
  const rows = issuedKeys(
    tx,
    pools.map((pool) => pool.poolNum),
    cursor,
    limit + 1,
  )
  const page = rows.slice(0, limit)
  const last = page.at(-1)
  const issued = Map.groupBy(page, (row) => row.poolNum)
  return {
    status: core.keys.statusOf(state),
    pools: pools.map((pool) => ({
      algorithm: pool.algorithm,
      available: availableKeys(core, tx, pool).map(inspected),
      issued: (issued.get(pool.poolNum) ?? []).map(inspected),
      ...(pool.fallback && { fallback: pool.fallback }),
    })),
    ...(rows.length > limit && last && { nextBatch: writeCursor({ pool: last.poolNum, place: last.num }) }),
  }
}

function availableKeys({ policy }: Core, tx: Transaction, { poolNum }: PoolState): KeyRow[] {
  const order = policy.claimOrder === 'upload' ? 'num' : 'key_id'
  return tx.all<KeyRow>(
    `select num, key_id, json, uploaded_ts as ts from one_time_keys
     where pool_num = ? and state = ${STATE_CODE.available} order by ${order}`,
    poolNum,
  )
}

/** Keys of a former installation, or with their details past the retention, are left out. */
function issuedKeys(
  tx: Transaction,
  pools: readonly number[],
  cursor: IssuedCursor | undefined,
  limit: number,
): (KeyRow & { readonly poolNum: number })[] {
  const found: (KeyRow & { readonly poolNum: number })[] = []
  for (const { pool, place } of pagesFrom(pools, cursor)) {
    if (found.length >= limit) break
    const rows = tx.all<KeyRow>(
      `select num, key_id, json, left_ts as ts from one_time_keys
       where pool_num = ?1 and state = ${STATE_CODE.issued} and json is not null
         and num < ?2 and num >= (select first_num from pools where pool_num = ?1)
       order by num desc limit ?3`,
      pool,
      place,
      limit - found.length,
    )
    found.push(...rows.map((row) => ({ ...row, poolNum: pool })))
  }
  return found
}

function inspected(row: KeyRow): InspectedKey {
  return { keyId: row.key_id, keyHash: keyHash(materialOfJson(row.json)), ts: row.ts }
}
