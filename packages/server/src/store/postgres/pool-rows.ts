/**
 * A device's pools while they are changed: read once under their locks, changed in memory by the domain's decisions, and
 * written by a handful of statements, however many keys a request carries. Claims change them by themselves (claim-keys.ts).
 *
 * Available: state 0 and seq >= head. Issued: state 1, or state 0 and seq < head. `changes` grows with every change.
 */
import type { Algorithm, KeyId, KeyMaterial } from '@latchkey/protocol'
import { unknownToken } from '../../matrix-error.ts'
import type { UploadedKey } from '../../pool/port.ts'
import type { DeviceRef, Session } from '../../session.ts'
import { materialHash, STATE_CODE } from '../key-row.ts'
import type { Queries } from './database.ts'
import { type DigestedKey, digestOf } from './digests.ts'

/** The columns of `pools`. */
type PoolRow = {
  pool_num: number
  readonly algorithm: Algorithm
  head: number
  last_seq: number
  count: number
  changes: number
  told: number
  fallback_key_id: KeyId | null
  fallback_json: string | null
  fallback_material: KeyMaterial | null
  fallback_used: boolean
  fallback_issue_count: number
  fallback_first_issued_ts: number | null
  fallback_uploaded_ts: number | null
}

const COLUMNS = `pool_num, algorithm, head, last_seq, count, changes, told, fallback_key_id, fallback_json,
  fallback_material, fallback_used, fallback_issue_count, fallback_first_issued_ts, fallback_uploaded_ts`

/** A key that is available. */
export type AvailableKey = DigestedKey & {
  readonly seq: number
  /** The hash of its material (key-row.ts), in hexadecimal: most keys of a pool are only looked up by it. */
  readonly hash: string
}

/** Of a pool that is not in the database yet. */
const NO_NUMBER = 0

type Removal = 'withdrawn' | 'evicted' | 'purged'

/** One pool of a device, locked. Its available keys are read only where they are needed (`loadPools`). */
export class Pool {
  readonly row: PoolRow
  /** The pool as it was locked: as the database has it until it is saved. */
  readonly before: Readonly<PoolRow>
  readonly added: AvailableKey[] = []
  readonly removed = new Map<AvailableKey['seq'], { readonly key: AvailableKey; readonly state: Removal }>()
  formerFallback: PoolRow | undefined
  #available: readonly AvailableKey[] | undefined

  constructor(row: PoolRow) {
    this.row = row
    this.before = { ...row }
  }

  /** One that the database does not have (`makePools`). */
  static empty(algorithm: Algorithm): Pool {
    return new Pool({
      pool_num: NO_NUMBER,
      algorithm,
      head: 1,
      last_seq: 0,
      count: 0,
      changes: 0,
      told: 0,
      fallback_key_id: null,
      fallback_json: null,
      fallback_material: null,
      fallback_used: false,
      fallback_issue_count: 0,
      fallback_first_issued_ts: null,
      fallback_uploaded_ts: null,
    })
  }

  get algorithm(): Algorithm {
    return this.row.algorithm
  }

  get isLoaded(): boolean {
    return this.#available !== undefined
  }

  get isChanged(): boolean {
    return this.row.changes > this.before.changes
  }

  /** In upload order. Only of a pool that was loaded. */
  get available(): readonly AvailableKey[] {
    if (this.#available === undefined) throw new Error(`pool ${this.row.pool_num} is not loaded`)
    return this.#available
  }

  /**
   * The digest of the available keys.
   *
   * @param before the digest before the changes, if it is known; without it the pool has to be loaded
   */
  digest(before: string | undefined): string {
    if (before === undefined) return digestOf(this.algorithm, this.available)
    const removed = [...this.removed.values()].map(({ key }) => key)
    return digestOf(this.algorithm, [...this.added, ...removed], before)
  }

  /** Takes in what the database holds. Before any change. */
  load(keys: readonly AvailableKey[]): void {
    if (keys.length !== this.row.count) {
      throw new Error(
        `pool ${this.row.pool_num} counts ${this.row.count} available keys and has ${keys.length}`,
      )
    }
    this.#available = keys
  }

  /** Appends keys to the log, in their order. */
  append(keys: readonly HashedKey[]): void {
    if (keys.length === 0) return
    // Nothing below is available, so the head may pass it.
    if (this.row.count === 0) this.row.head = this.row.last_seq + 1
    const added = keys.map(({ keyId, json, material, hash }) => ({
      seq: ++this.row.last_seq,
      key_id: keyId,
      json,
      material,
      hash,
    }))
    this.added.push(...added)
    this.#available = this.#available && [...this.#available, ...added]
    this.row.count += added.length
    this.row.changes++
  }

  /** Takes available keys out, other than by issuing them. Only of a pool that was loaded. */
  remove(keys: readonly AvailableKey[], state: Removal): void {
    if (keys.length === 0) return
    for (const key of keys) this.removed.set(key.seq, { key, state })
    const available = this.available.filter((key) => !this.removed.has(key.seq))
    this.#available = available
    this.row.count = available.length
    // Never back: keys below it would pass for available again.
    this.row.head = available[0]?.seq ?? this.row.last_seq + 1
    this.row.changes++
  }

  /** A new fallback key; the one before is remembered, so that a late duplicate of it is not taken for a new one. */
  replaceFallback(key: UploadedKey, now: number): void {
    if (this.row.fallback_material !== null) this.formerFallback = { ...this.row }
    this.row.fallback_key_id = key.keyId
    this.row.fallback_json = key.json
    this.row.fallback_material = key.material
    this.row.fallback_used = false
    this.row.fallback_issue_count = 0
    this.row.fallback_first_issued_ts = null
    this.row.fallback_uploaded_ts = now
    this.row.changes++
  }
}

/** A key of a request, and how `AvailableKey.hash` has its material. */
export type HashedKey = UploadedKey & { readonly hash: string }

export function hashOf(material: KeyMaterial): string {
  return Buffer.from(materialHash(material)).toString('hex')
}

/** A hash as an element of a `bytea[]` parameter. */
export function bytesOf(hash: string): string {
  return `\\x${hash}`
}

/**
 * Locks the pools of a session's device, by number; returns them by name of their algorithm. The device is locked, so in
 * the same statement its token may be looked up: it changes under that lock only.
 *
 * @throws {MatrixError} 401 when the session has ended.
 */
export async function lockPools(tx: Queries, { tokenHash, deviceRef }: Session): Promise<Pool[]> {
  const rows = await tx.all<PoolRow | { readonly pool_num: null }>(
    `with locked as (select ${COLUMNS} from pools where device_num = $1 order by pool_num for update)
     select locked.* from access_tokens left join locked on true
     where token_hash = $2 and access_tokens.device_num = $1`,
    deviceRef,
    tokenHash,
  )
  if (rows.length === 0) throw unknownToken()
  return rows
    .filter((row) => row.pool_num !== null)
    .sort((a, b) => (a.algorithm < b.algorithm ? -1 : 1))
    .map((row) => new Pool(row))
}

/**
 * Makes rows for those pools that have none. The device is locked, so nobody else makes them. To be called when nothing can
 * refuse the request any more: an undone transaction does not give the numbers back, and there are 2^31 of them.
 */
export async function makePools(tx: Queries, device: DeviceRef, pools: readonly Pool[]): Promise<void> {
  const missing = pools.filter(({ row }) => row.pool_num === NO_NUMBER)
  if (missing.length === 0) return
  const made = await tx.all<Pick<PoolRow, 'pool_num' | 'algorithm'>>(
    `insert into pools (device_num, algorithm) select $1, unnest($2::text[]) returning pool_num, algorithm`,
    device,
    missing.map(({ algorithm }) => algorithm),
  )
  const numbers = new Map(made.map((row) => [row.algorithm, row.pool_num]))
  for (const { row } of missing) {
    const num = numbers.get(row.algorithm)
    if (num === undefined) throw new Error(`the pool of ${row.algorithm} was not made`)
    row.pool_num = num
  }
}

/** Reads the available keys of locked pools. */
export async function loadPools(tx: Queries, pools: readonly Pool[]): Promise<void> {
  const wanted = pools.filter((pool) => !pool.isLoaded)
  const filled = wanted.filter((pool) => pool.row.count > 0)
  const rows =
    filled.length === 0
      ? []
      : await tx.all<AvailableKey & { pool_num: number }>(
          `select pool_num, seq, key_id, json, encode(material, 'hex') as hash from pools join one_time_keys using (pool_num)
           where pool_num = any($1::bigint[]) and seq >= head and state = ${STATE_CODE.available} order by seq`,
          filled.map((pool) => pool.row.pool_num),
        )
  const keys = Map.groupBy(rows, (row) => row.pool_num)
  for (const pool of wanted) pool.load(keys.get(pool.row.pool_num) ?? [])
}

/** What an upload or a reset changes of its device. */
export type SavedDevice = {
  readonly device_num: DeviceRef
  readonly version: number
  readonly generation: number
  readonly day_start_ts: number
  readonly day_stored: number
}

/**
 * Writes what changed. The device is told all counts by the answer, so it counts as knowing them.
 *
 * @param device undefined where nothing of it changed
 */
export async function savePools(
  tx: Queries,
  pools: readonly Pool[],
  device: SavedDevice | undefined,
  now: number,
): Promise<void> {
  const keys = pools.flatMap((pool) => pool.added.map((key) => ({ num: pool.row.pool_num, ...key })))
  const rows = pools
    .filter((pool) => pool.isChanged || pool.row.told !== pool.row.count)
    .map(({ row }) => row)
  if (rows.length === 0 && device === undefined) return
  for (const row of rows) row.told = row.count
  await tx.run(
    `with added as (
       insert into one_time_keys (pool_num, seq, uploaded_ts, key_id, material, json)
       select pool_num, seq, $13, key_id, material, json
       from unnest($14::bigint[], $15::bigint[], $16::text[], $17::bytea[], $18::text[])
         as added (pool_num, seq, key_id, material, json)),
     device as (
       update devices set version = $20, generation = $21, day_start_ts = $22, day_stored = $23
       where device_num = $19)
     update pools set head = saved.head, last_seq = saved.last_seq, count = saved.count, changes = saved.changes,
       told = saved.count, fallback_key_id = saved.key_id, fallback_json = saved.json,
       fallback_material = saved.material, fallback_used = saved.used, fallback_issue_count = saved.issue_count,
       fallback_first_issued_ts = saved.first_issued_ts, fallback_uploaded_ts = saved.uploaded_ts
     from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::int[], $5::bigint[], $6::text[], $7::text[], $8::text[],
         $9::boolean[], $10::bigint[], $11::bigint[], $12::bigint[])
       as saved (pool_num, head, last_seq, count, changes, key_id, json, material, used, issue_count,
         first_issued_ts, uploaded_ts)
     where pools.pool_num = saved.pool_num`,
    rows.map((row) => row.pool_num),
    rows.map((row) => row.head),
    rows.map((row) => row.last_seq),
    rows.map((row) => row.count),
    rows.map((row) => row.changes),
    rows.map((row) => row.fallback_key_id),
    rows.map((row) => row.fallback_json),
    rows.map((row) => row.fallback_material),
    rows.map((row) => row.fallback_used),
    rows.map((row) => row.fallback_issue_count),
    rows.map((row) => row.fallback_first_issued_ts),
    rows.map((row) => row.fallback_uploaded_ts),
    now,
    keys.map((key) => key.num),
    keys.map((key) => key.seq),
    keys.map((key) => key.key_id),
    keys.map((key) => bytesOf(key.hash)),
    keys.map((key) => key.json),
    device?.device_num,
    device?.version,
    device?.generation,
    device?.day_start_ts,
    device?.day_stored,
  )
  // Afterwards: what was only just added may be among them.
  await markRemoved(tx, pools, now)
  await keepFormerFallbacks(tx, pools, now)
}

async function markRemoved(tx: Queries, pools: readonly Pool[], now: number): Promise<void> {
  const keys = pools.flatMap((pool) =>
    [...pool.removed].map(([seq, { state }]) => ({ num: pool.row.pool_num, seq, state })),
  )
  if (keys.length === 0) return
  await tx.run(
    `update one_time_keys set state = gone.state, left_ts = $1
     from unnest($2::bigint[], $3::bigint[], $4::smallint[]) as gone (pool_num, seq, state)
     where one_time_keys.pool_num = gone.pool_num and one_time_keys.seq = gone.seq`,
    now,
    keys.map((key) => key.num),
    keys.map((key) => key.seq),
    keys.map((key) => STATE_CODE[key.state]),
  )
}

async function keepFormerFallbacks(tx: Queries, pools: readonly Pool[], now: number): Promise<void> {
  const rows = pools.flatMap(({ row: { pool_num }, formerFallback: row }) =>
    row === undefined || row.fallback_material === null
      ? []
      : [{ ...row, pool_num, hash: materialHash(row.fallback_material) }],
  )
  if (rows.length === 0) return
  await tx.run(
    `insert into former_fallback_keys
       (pool_num, material, key_id, uploaded_ts, left_ts, state, issue_count, first_issued_ts)
     select pool_num, material, key_id, uploaded_ts, $1, ${STATE_CODE.withdrawn}, issue_count, first_issued_ts
     from unnest($2::bigint[], $3::bytea[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[])
       as former (pool_num, material, key_id, uploaded_ts, issue_count, first_issued_ts)
     on conflict do nothing`,
    now,
    rows.map((row) => row.pool_num),
    rows.map((row) => row.hash),
    rows.map((row) => row.fallback_key_id),
    rows.map((row) => row.fallback_uploaded_ts),
    rows.map((row) => row.fallback_issue_count),
    rows.map((row) => row.fallback_first_issued_ts),
  )
}

/**
 * Purges every pool of locked devices. Their memory stays. Locks the pools; what was read of them before is stale.
 *
 * @param how `keepsHistory`: the same installation goes on and is shown the keys that it had; another one is not.
 *   `fallbackOf`: whose fallback keys go as well, everyone's where nothing is said.
 */
export async function purgePools(
  tx: Queries,
  devices: readonly DeviceRef[],
  now: number,
  how: { readonly keepsHistory?: boolean; readonly fallbackOf?: readonly DeviceRef[] } = {},
): Promise<void> {
  await tx.run(
    `select 1 from pools where device_num = any($1::bigint[]) order by pool_num for update`,
    devices,
  )
  await tx.run(
    `update one_time_keys set state = ${STATE_CODE.purged}, left_ts = $2 from pools
     where device_num = any($1::bigint[]) and one_time_keys.pool_num = pools.pool_num
       and seq >= head and state = ${STATE_CODE.available}`,
    devices,
    now,
  )
  await tx.run(
    `update pools set head = last_seq + 1, first_seq = case when $2 then first_seq else last_seq + 1 end,
       count = 0, told = 0, changes = changes + 1
     where device_num = any($1::bigint[])`,
    devices,
    how.keepsHistory === true,
  )
  await purgeFallbackKeys(tx, how.fallbackOf ?? devices, now)
}

/** The pools are locked. */
async function purgeFallbackKeys(tx: Queries, devices: readonly DeviceRef[], now: number): Promise<void> {
  if (devices.length === 0) return
  // The hash is key-row.ts's materialHash.
  await tx.run(
    `insert into former_fallback_keys
       (pool_num, material, key_id, uploaded_ts, left_ts, state, issue_count, first_issued_ts)
     select pool_num, substring(sha256(convert_to(fallback_material, 'UTF8')) from 1 for 16), fallback_key_id,
       fallback_uploaded_ts, $2, ${STATE_CODE.purged}, fallback_issue_count, fallback_first_issued_ts
     from pools where device_num = any($1::bigint[]) and fallback_material is not null
     on conflict do nothing`,
    devices,
    now,
  )
  await tx.run(
    `update pools set fallback_key_id = null, fallback_json = null, fallback_material = null, fallback_used = false,
       fallback_issue_count = 0, fallback_first_issued_ts = null, fallback_uploaded_ts = null
     where device_num = any($1::bigint[])`,
    devices,
  )
}
