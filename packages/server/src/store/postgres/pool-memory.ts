/**
 * What the upload rule may ask of a pool (pool/upload.ts), read before it asks: one statement for all its keys of a
 * request. What is available stands in memory; the rest is the log, by the hash of the material and by ID.
 */
import type { KeyId } from '@latchkey/protocol'
import type { KeyState, UploadedKey } from '../../pool/port.ts'
import type { PoolMemory } from '../../pool/upload.ts'
import { materialHash, materialOfJson, STATE_CODE, stateOf } from '../key-row.ts'
import type { Queries } from './database.ts'
import { hashOf, type Pool } from './pool-rows.ts'

/**
 * How far back an issued key of the same ID is looked for (the outcome `id_reused`): a day's keys at most. The log has no
 * index by ID; keys that left in between do not change what is stored, only what the answer says about it.
 */
const ID_LOOKBACK = 5_000

/** A key that left, as the log has it. */
type Gone = { readonly state: Exclude<KeyState, 'available' | 'withdrawn'>; readonly keyId: KeyId }

/** The part of the log that the keys of a request may meet, by pool. */
export type Log = {
  readonly byMaterial: ReadonlyMap<string, Gone>
  readonly issuedIds: ReadonlySet<string>
}

/** Reads the log of locked pools, one after the other: with plain arrays for each the planner cannot go astray. */
export async function readLog(
  tx: Queries,
  wanted: readonly { readonly pool: Pool; readonly keys: readonly UploadedKey[] }[],
): Promise<Log> {
  const log = { byMaterial: new Map<string, Gone>(), issuedIds: new Set<string>() }
  for (const { pool, keys } of wanted) {
    if (pool.before.last_seq > 0) await readPool(tx, pool.before, keys, log)
  }
  return log
}

async function readPool(
  tx: Queries,
  { pool_num: num, head, last_seq: lastSeq }: Pool['before'],
  keys: readonly UploadedKey[],
  log: { readonly byMaterial: Map<string, Gone>; readonly issuedIds: Set<string> },
): Promise<void> {
  const rows = await tx.all<{ material: Buffer | null; key_id: KeyId; state: number }>(
    `select material, key_id, case when state = ${STATE_CODE.available} then ${STATE_CODE.issued} else state end as state
     from one_time_keys
     where pool_num = $1 and material = any($2::bytea[]) and state <> ${STATE_CODE.withdrawn}
       and (state <> ${STATE_CODE.available} or seq < $4)
     union all
     select null, key_id, ${STATE_CODE.issued} from one_time_keys
     where pool_num = $1 and key_id = any($3::text[]) and seq > $5
       and (state = ${STATE_CODE.issued} or (state = ${STATE_CODE.available} and seq < $4))`,
    num,
    keys.map((key) => materialHash(key.material)),
    keys.map((key) => key.keyId),
    head,
    lastSeq - ID_LOOKBACK,
  )
  for (const row of rows) {
    if (row.material === null) {
      log.issuedIds.add(`${num} ${row.key_id}`)
      continue
    }
    const state = stateOf(row.state)
    if (state === 'available' || state === 'withdrawn') continue
    log.byMaterial.set(`${num} ${row.material.toString('hex')}`, { state, keyId: row.key_id })
  }
}

/** What a pool remembers, as it stands now: after a heal it answers anew. */
export function memoryOf(pool: Pool, log: Log): PoolMemory {
  const byHash = new Map(pool.available.map((key) => [key.hash, key.key_id]))
  const byId = new Map(pool.available.map((key) => [key.key_id, key]))
  const { pool_num: num } = pool.row
  return {
    byMaterial(material) {
      const hash = hashOf(material)
      const keyId = byHash.get(hash)
      if (keyId !== undefined) return { state: 'available', keyId }
      return log.byMaterial.get(`${num} ${hash}`)
    },
    availableById(keyId) {
      const key = byId.get(keyId)
      return key && { material: materialOfJson(key.json), json: key.json }
    },
    issuedUnder: (keyId) => log.issuedIds.has(`${num} ${keyId}`),
  }
}
