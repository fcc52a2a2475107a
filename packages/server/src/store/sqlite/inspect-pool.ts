/** `GET keys/pool`: a device's own pools, available keys whole and issued ones by pages (extensions.md). */
import type { Algorithm, KeyId } from '@latchkey/protocol'
import { invalidParam } from '../../matrix-error.ts'
import type { InspectedKey, PoolInspection } from '../../pool/port.ts'
import type { Session } from '../../session.ts'
import type { Core } from './core.ts'
import { touchDevice } from './first-touch.ts'
import { keyHash, materialOfJson, STATE_CODE } from '../key-row.ts'
import { type PoolRow, poolsOf } from './pool-rows.ts'
import { poolStatus } from './pool-status.ts'
import { requireDevice } from './session-device.ts'

export async function inspectPool(
  core: Core,
  session: Session,
  page: { readonly limit: number; readonly from?: string },
): Promise<PoolInspection> {
  const cursor = readCursor(page.from)
  return core.queue.guarded(() => inspect(core, session, page.limit, cursor), {
    before: () => touchDevice(core, session.deviceRef),
  })
}

type KeyRow = {
  readonly num: number
  readonly algorithm: Algorithm
  readonly key_id: KeyId
  readonly json: string
  readonly ts: number
}

/** The cursor is the row of the last issued key of the page before. */
function readCursor(from: string | undefined): number {
  if (from === undefined) return Number.MAX_SAFE_INTEGER
  if (!/^\d{1,15}$/.test(from)) throw invalidParam('from: expected the next_batch of an earlier answer.')
  return Number(from)
}

function inspect(core: Core, session: Session, limit: number, cursor: number): PoolInspection {
  requireDevice(core, session)
  const device = session.deviceRef
  const rows = poolsOf(core, device)
    .flatMap((pool) => issuedKeys(core, pool, cursor, limit + 1))
    .sort((a, b) => b.num - a.num)
  const page = rows.slice(0, limit)
  const last = page.at(-1)
  const issued = Map.groupBy(page, (row) => row.algorithm)
  const state = core.keys.byRef(device)
  const pools = poolsOf(core, device).map((pool) => {
    const fallback = state?.pools.get(pool.algorithm)?.fallback
    return {
      algorithm: pool.algorithm,
      available: availableKeys(core, pool).map(inspected),
      issued: (issued.get(pool.algorithm) ?? []).map(inspected),
      ...(fallback && { fallback }),
    }
  })
  return {
    status: poolStatus(core, device),
    pools,
    ...(rows.length > limit && last && { nextBatch: String(last.num) }),
  }
}

function availableKeys(core: Core, pool: PoolRow): KeyRow[] {
  const order = core.policy.claimOrder === 'upload' ? 'num' : 'key_id'
  return core.db.all<KeyRow>(
    `select num, ? as algorithm, key_id, json, uploaded_ts as ts from one_time_keys
     where pool_num = ? and state = ${STATE_CODE.available} order by ${order}`,
    pool.algorithm,
    pool.pool_num,
  )
}

/** The last uploaded first. Keys of a former installation, or with their details past the retention, are left out. */
function issuedKeys(core: Core, pool: PoolRow, cursor: number, limit: number): KeyRow[] {
  return core.db.all<KeyRow>(
    `select num, ?1 as algorithm, key_id, json, left_ts as ts from one_time_keys
     where pool_num = ?2 and state = ${STATE_CODE.issued} and json is not null
       and num < ?3 and num >= (select first_num from pools where pool_num = ?2)
     order by num desc limit ?4`,
    pool.algorithm,
    pool.pool_num,
    cursor,
    limit,
  )
}

function inspected(row: KeyRow): InspectedKey {
  return { keyId: row.key_id, keyHash: keyHash(materialOfJson(row.json)), ts: row.ts }
}
