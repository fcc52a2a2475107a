/**
 * Whether an import is whole, before it is committed: every row read back and compared with what was read, and every
 * pool's count and digest computed anew from the keys that PostgreSQL would issue. A difference undoes the import.
 */
import { type Algorithm, emptyDigest, type KeyId, mixIn } from '@latchkey/protocol'
import { materialOfJson, shareOf } from '../../pool/key.ts'
import { STATE_CODE } from '../key-row.ts'
import type { Queries } from '../postgres/database.ts'
import type { Database } from '../sqlite/database.ts'
import { StoreError } from '../store-error.ts'
import { Fingerprint, type Row } from './fingerprint.ts'
import type { TableCopy } from './table-copy-type.ts'

const FETCH_ROWS = 2_000

/** @throws {StoreError} when a table is not as it was read. */
export async function verifyTable(target: Queries, copy: TableCopy, expected: Fingerprint): Promise<void> {
  const names = Object.keys(copy.columns)
  const found = new Fingerprint()
  const sql = `select ${names.join(', ')} from ${copy.table}`
  for await (const row of readAll<Readonly<Record<string, Row[number]>>>(target, sql)) {
    found.add(names.map((name) => row[name] ?? null))
  }
  if (found.equals(expected)) return
  throw differs(
    found.rows === expected.rows
      ? `the rows of ${copy.table} are not those that were read`
      : `${copy.table} has ${found.rows} rows, ${expected.rows} were read`,
  )
}

type PoolRow = { readonly pool_num: number; readonly count: number; readonly digest: Uint8Array }

type AvailableKey = {
  readonly pool_num: number
  readonly algorithm: Algorithm
  /** Null, as the text, for a pool without available keys. */
  readonly key_id: KeyId | null
  readonly json: string | null
}

/** @throws {StoreError} when a pool's available keys are not those that its count and digest speak of. */
export async function verifyPools(source: Database, target: Queries): Promise<void> {
  const expected = source.each<PoolRow>(`select pool_num, count, digest from pools order by pool_num`)
  for await (const found of poolsOf(target)) {
    const next = expected.next()
    const wanted = next.done === true ? undefined : next.value
    if (wanted?.pool_num !== found.pool_num) throw differs(`pool ${found.pool_num} is one too many`)
    if (wanted.count !== found.count) {
      throw differs(`pool ${found.pool_num} has ${found.count} available keys, not ${wanted.count}`)
    }
    if (Buffer.compare(wanted.digest, found.digest) !== 0) {
      throw differs(`the available keys of pool ${found.pool_num} are not those of its digest`)
    }
  }
  if (expected.next().done !== true) throw differs('pools are missing')
}

/** Every pool by its number, with the count and the digest of its available keys. */
async function* poolsOf(target: Queries): AsyncGenerator<PoolRow> {
  const keys = readAll<AvailableKey>(
    target,
    `select pools.pool_num, algorithm, key_id, json from pools left join one_time_keys as key
       on key.pool_num = pools.pool_num and seq >= head and state = ${STATE_CODE.available}
     order by pools.pool_num`,
  )
  let pool: { readonly pool_num: number; count: number; readonly digest: Uint8Array } | undefined
  for await (const { pool_num: num, algorithm, key_id: keyId, json } of keys) {
    if (pool?.pool_num !== num) {
      if (pool !== undefined) yield pool
      pool = { pool_num: num, count: 0, digest: emptyDigest() }
    }
    if (keyId === null || json === null) continue
    pool.count++
    mixIn(pool.digest, shareOf(algorithm, keyId, materialOfJson(json)))
  }
  if (pool !== undefined) yield pool
}

/** Through a cursor: a table may be larger than memory. Inside a transaction. */
async function* readAll<T extends object>(target: Queries, sql: string): AsyncGenerator<T> {
  await target.run(`declare import_rows no scroll cursor for ${sql}`)
  for (;;) {
    const rows = await target.all<T>(`fetch ${FETCH_ROWS} from import_rows`)
    yield* rows
    if (rows.length < FETCH_ROWS) break
  }
  await target.run(`close import_rows`)
}

function differs(difference: string): StoreError {
  return new StoreError(
    `The import was undone, because PostgreSQL would not have what the embedded database has: ${difference}. Please report it.`,
  )
}
