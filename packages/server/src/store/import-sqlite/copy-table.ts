/** Copies a table into PostgreSQL in batches, so that memory does not grow with the table. */
import type { Transaction } from '../postgres/database.ts'
import type { Database } from '../sqlite/database.ts'
import { StoreError } from '../store-error.ts'
import { Fingerprint, type Row } from './fingerprint.ts'
import type { TableCopy } from './table-copy-type.ts'

/** A batch ends at the first of the two limits. */
const BATCH_ROWS = 2_000
const BATCH_LENGTH = 4 * 1024 * 1024

/**
 * Inserts the rows; returns their fingerprint.
 *
 * @param copied called after each batch with the number of rows copied so far
 * @throws {StoreError} when PostgreSQL cannot store a text.
 */
export async function copyTable(
  source: Database,
  target: Transaction,
  copy: TableCopy,
  copied: (rows: number) => void,
): Promise<Fingerprint> {
  const fingerprint = new Fingerprint()
  const insert = insertInto(copy)
  let batch: Row[] = []
  let length = 0
  const flush = async (): Promise<void> => {
    if (batch.length === 0) return
    await target.run(insert, ...Object.keys(copy.columns).map((_, i) => batch.map((row) => row[i] ?? null)))
    batch = []
    length = 0
    copied(fingerprint.rows)
  }
  for (const row of copy.rows(source)) {
    length += lengthOf(row, copy)
    fingerprint.add(row)
    batch.push(row)
    if (batch.length >= BATCH_ROWS || length >= BATCH_LENGTH) await flush()
  }
  await flush()
  return fingerprint
}

function insertInto({ table, columns }: TableCopy): string {
  const arrays = Object.values(columns).map((type, i) => `$${i + 1}::${type}[]`)
  // `overriding` keeps the handles of the source in identity columns.
  return `insert into ${table} (${Object.keys(columns).join(', ')}) overriding system value
    select * from unnest(${arrays.join(', ')})`
}

function lengthOf(row: Row, { table, columns }: TableCopy): number {
  let length = 0
  for (const [i, value] of row.entries()) {
    if (typeof value !== 'string') continue
    if (value.includes('\0')) {
      throw new StoreError(
        `A text of the embedded database (${table}.${Object.keys(columns)[i]}) has a character U+0000, which PostgreSQL cannot store. Nothing was imported; please report it.`,
      )
    }
    length += value.length
  }
  return length
}
