/**
 * The verification of an import before its commit: every row is read back and compared with the source, and every
 * pool's count and digest are computed again from the keys that PostgreSQL would issue. A difference rolls the import
 * back.
 */
import { type Algorithm, emptyDigest, type KeyId, mixIn } from '@latchkey/protocol'
import { materialOfJson, shareOf } from '../../pool/key.ts'
import { STATE_CODE } from '../key-row.ts'
import type { Transaction } from '../postgres/database.ts'
import type { Database } from '../sqlite/database.ts'
import { StoreError } from '../store-error.ts'
import { Fingerprint, type Row } from './fingerprint.ts'
import type { TableCopy } from './table-copy-type.ts'

const FETCH_ROWS = 2_000

/** @throws {StoreError} when a table differs from its source. */
export async function verifyTable(
  target: Transaction,
  copy: TableCopy,
  expected: Fingerprint,
): Promise<void> {
  const names = Object.keys(copy.columns)
  const found = new Fingerprint()
  const sql = `select ${names.join(', ')} from ${copy.table}`
  for await (const row of readAll<Readonly<Record<string, Row[number]>>>(target, sql)) {
    found.add(names.map((name) => row[name] ?? null))
  }
  if (found.equals(expected)) return
  throw differs(
    found.rows === expected.rows
      ? `the rows of ${copy.table} differ from those that were read`
      : `${copy.table} has ${found.rows} rows, ${expected.rows} were read`,
  )
}

type PoolRow = { readonly pool_num: number; readonly count: number; readonly digest: Uint8Array }

type AvailableKey = {
  readonly pool_num: number
  readonly algorithm: Algorithm
  /** Null, like the text, for a pool without available keys. */
  readonly key_id: KeyId | null
  readonly json: string | null
}

/** @throws {StoreError} when a pool's available keys do not match its count or digest. */
export async function verifyPools(source: Database, target: Transaction): Promise<void> {
  const expected = source.each<PoolRow>(`select pool_num, count, digest from pools order by pool_num`)
  for await (const found of poolsOf(target)) {
    const next = expected.next()
    const wanted = next.done === true ? undefined : next.value
    if (wanted?.pool_num !== found.pool_num)
      throw differs(`the embedded database does not have pool ${found.pool_num}`)
    if (wanted.count !== found.count) {
      throw differs(`pool ${found.pool_num} has ${found.count} available keys, not ${wanted.count}`)
    }
    if (Buffer.compare(wanted.digest, found.digest) !== 0) {
      throw differs(`the available keys of pool ${found.pool_num} do not match its digest`)
    }
  }
  if (expected.next().done !== true) throw differs('pools are missing')
}

/** All pools by number, with the count and the digest of their available keys. */
async function* poolsOf(target: Transaction): AsyncGenerator<PoolRow> {
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

/** Reads through a cursor, because a table may be larger than memory. */
async function* readAll<T extends object>(target: Transaction, sql: string): AsyncGenerator<T> {
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
    `The import was rolled back, because PostgreSQL would differ from the embedded database: ${difference}. Please report it.`,
  )
}
