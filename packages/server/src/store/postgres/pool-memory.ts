/**
 * What the upload rule may ask of a pool (pool/upload.ts), read before it asks: one statement for all its keys of a
 * request, which finds them by the hash of their material and by their ID, however many keys the pool has.
 */
import type { KeyId, KeyMaterial } from '@latchkey/protocol'
import type { KeyState } from '../../pool/port.ts'
import type { PoolMemory } from '../../pool/upload.ts'
import { materialOfJson, STATE_CODE, stateOf } from '../key-row.ts'
import type { Queries } from './database.ts'
import { bytesOf, hashOf, type HashedKey, type Pool } from './pool-rows.ts'

/**
 * How far back an issued key of the same ID is looked for (the outcome `id_reused`): a day's keys at most. The log has no
 * index by ID; keys that left in between do not change what is stored, only what the answer says about it.
 */
const ID_LOOKBACK = 5_000

/** A row that the keys of a request may meet. */
type Met = { readonly seq: number; readonly state: KeyState; readonly keyId: KeyId }

/** The rows of one pool that the keys of a request may meet, as the database has them. */
export type Log = {
  readonly byHash: ReadonlyMap<string, Met>
  /** Available keys with an ID of the request: their text. */
  readonly availableById: ReadonlyMap<KeyId, Met & { readonly json: string }>
  readonly issuedIds: ReadonlySet<KeyId>
}

type LogRow = {
  /** Null for a row that was found by its ID. */
  readonly hash: string | null
  readonly seq: number
  readonly state: number
  readonly key_id: KeyId
  readonly json: string | null
}

/** Reads the log of a locked pool. */
export async function readLog(tx: Queries, { before }: Pool, keys: readonly HashedKey[]): Promise<Log> {
  const { pool_num: num, head, last_seq: lastSeq } = before
  const rows = lastSeq === 0 ? [] : await readRows(tx, num, head, lastSeq, keys)
  const byHash = new Map<string, Met>()
  const availableById = new Map<KeyId, Met & { readonly json: string }>()
  const issuedIds = new Set<KeyId>()
  for (const { hash, seq, state: code, key_id: keyId, json } of rows) {
    const met = { seq, state: stateOf(code), keyId }
    if (hash !== null) byHash.set(hash, met)
    else if (json === null) issuedIds.add(keyId)
    else availableById.set(keyId, { ...met, json })
  }
  return { byHash, availableById, issuedIds }
}

/**
 * The IDs are hashed once and the rows of the log are read once, whatever the planner expects: that is what the
 * `coalesce` is for, which keeps the condition from becoming a join.
 */
function readRows(
  tx: Queries,
  num: number,
  head: number,
  lastSeq: number,
  keys: readonly HashedKey[],
): Promise<LogRow[]> {
  return tx.all<LogRow>(
    `select encode(material, 'hex') as hash, seq, key_id, null as json,
       case when state = ${STATE_CODE.available} and seq < $4 then ${STATE_CODE.issued} else state end as state
     from one_time_keys
     where pool_num = $1 and material = any($2::bytea[]) and state <> ${STATE_CODE.withdrawn}
       -- The index has no more of a material.
       and substr(material, 1, 3) = any(array(select substr(asked, 1, 3) from unnest($2::bytea[]) as asked))
     union all
     select null, seq, key_id, case when state = ${STATE_CODE.available} and seq >= $4 then json end,
       case when state = ${STATE_CODE.available} and seq < $4 then ${STATE_CODE.issued} else state end
     from one_time_keys
     where pool_num = $1 and seq > $5 and state in (${STATE_CODE.available}, ${STATE_CODE.issued})
       and coalesce(key_id in (select unnest($3::text[])), false)`,
    num,
    keys.map((key) => bytesOf(key.hash)),
    keys.map((key) => key.keyId),
    head,
    Math.min(lastSeq - ID_LOOKBACK, head - 1),
  )
}

/** What a pool remembers, as it stands now: what a reset or a heal has taken out is available no more. */
export function memoryOf(pool: Pool, log: Log, keys: readonly HashedKey[]): PoolMemory {
  const hashes = new Map<KeyMaterial, string>(keys.map((key) => [key.material, key.hash]))
  return {
    byMaterial(material) {
      const met = log.byHash.get(hashes.get(material) ?? hashOf(material))
      if (met === undefined || met.state === 'withdrawn' || pool.removed.has(met.seq)) return undefined
      return { state: met.state, keyId: met.keyId }
    },
    availableById(keyId) {
      const met = log.availableById.get(keyId)
      if (met === undefined || pool.removed.has(met.seq)) return undefined
      return { material: materialOfJson(met.json), json: met.json }
    },
    issuedUnder: (keyId) => log.issuedIds.has(keyId),
  }
}
