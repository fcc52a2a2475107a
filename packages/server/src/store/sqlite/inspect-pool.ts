/** `GET keys/pool`: a device's own pools, available keys whole and issued ones by pages (extensions.md). */
import type { Algorithm, KeyId } from '@latchkey/protocol'
import { invalidParam } from '../../matrix-error.ts'
import type { InspectedKey, PoolInspection } from '../../pool/port.ts'
import type { DeviceRef } from '../../session.ts'
import type { Core } from './core.ts'
import { keyHash, materialOfJson, STATE_CODE } from './key-row.ts'
import { poolsOf } from './pool-rows.ts'
import { poolStatus } from './pool-status.ts'

export async function inspectPool(
  core: Core,
  device: DeviceRef,
  page: { readonly limit: number; readonly from?: string },
): Promise<PoolInspection> {
  const cursor = readCursor(page.from)
  return core.queue.guarded(() => inspect(core, device, page.limit, cursor), {
    before: () => core.keys.settle(device),
  })
}

type KeyRow = {
  readonly num: number
  readonly algorithm: Algorithm
  readonly key_id: KeyId
  readonly json: string
  readonly ts: number
}
/** The last issued key of the page before: issue time and row. */
type Cursor = { readonly ts: number; readonly num: number }

const START: Cursor = { ts: Number.MAX_SAFE_INTEGER, num: Number.MAX_SAFE_INTEGER }

function readCursor(from: string | undefined): Cursor {
  if (from === undefined) return START
  const [, ts, num] = /^(\d{1,15})_(\d{1,15})$/.exec(from) ?? []
  if (ts === undefined || num === undefined)
    throw invalidParam('from: expected the next_batch of an earlier answer.')
  return { ts: Number(ts), num: Number(num) }
}

function inspect(core: Core, device: DeviceRef, limit: number, cursor: Cursor): PoolInspection {
  const status = poolStatus(core, device)
  const state = core.keys.byRef(device)
  const available = Map.groupBy(availableKeys(core, device), (row) => row.algorithm)
  const rows = issuedKeys(core, device, cursor, limit + 1)
  const page = rows.slice(0, limit)
  const issued = Map.groupBy(page, (row) => row.algorithm)
  const last = page.at(-1)
  const pools = poolsOf(core, device).map(({ algorithm }) => {
    const fallback = state?.pools.get(algorithm)?.fallback
    return {
      algorithm,
      available: (available.get(algorithm) ?? []).map(inspected),
      issued: (issued.get(algorithm) ?? []).map(inspected),
      ...(fallback && { fallback }),
    }
  })
  return { status, pools, ...(rows.length > limit && last && { nextBatch: `${last.ts}_${last.num}` }) }
}

function availableKeys(core: Core, device: DeviceRef): KeyRow[] {
  const order = core.policy.claimOrder === 'upload' ? 'num' : 'key_id'
  return core.db.all<KeyRow>(
    `select num, algorithm, key_id, json, uploaded_ts as ts from one_time_keys join pools using (pool_num)
     where device_num = ? and state = ${STATE_CODE.available} and num >= head order by ${order}`,
    device,
  )
}

/** The most recent first. Keys whose details are past the retention are left out. */
function issuedKeys(core: Core, device: DeviceRef, { ts, num }: Cursor, limit: number): KeyRow[] {
  return core.db.all<KeyRow>(
    `select num, algorithm, key_id, json, left_ts as ts from one_time_keys join pools using (pool_num)
     where device_num = ? and state = ${STATE_CODE.issued} and json is not null and (left_ts, num) < (?, ?)
     order by left_ts desc, num desc limit ?`,
    device,
    ts,
    num,
    limit,
  )
}

function inspected(row: KeyRow): InspectedKey {
  return { keyId: row.key_id, keyHash: keyHash(materialOfJson(row.json)), ts: row.ts }
}
