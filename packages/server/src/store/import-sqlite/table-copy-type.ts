/** One table of an import: its columns in PostgreSQL, and its rows in the embedded database. */
import type { Database } from '../sqlite/database.ts'
import type { Row } from './fingerprint.ts'

export type ColumnType = 'bigint' | 'int' | 'smallint' | 'boolean' | 'text' | 'bytea'

/** Columns of the table in PostgreSQL. */
export type Columns = Readonly<Record<string, ColumnType>>

export type TableCopy = {
  /** Its name in PostgreSQL. */
  readonly table: string
  readonly columns: Columns
  /** Number of rows that `rows` yields. */
  count(source: Database): number
  /** Streamed, because a table may be larger than memory. */
  rows(source: Database): Iterable<Row>
}
