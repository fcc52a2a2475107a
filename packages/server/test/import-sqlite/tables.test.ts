/** Every table of the embedded store is in `latchkey import sqlite`, or is left out for a reason that is named here. */
import assert from 'node:assert/strict'
import { DatabaseSync } from 'node:sqlite'
import { test } from 'node:test'
import { TABLE_COPIES } from '../../src/store/import-sqlite/table-copy.ts'
import { addMigrationFunctions, migrations } from '../../src/store/sqlite/migrations/index.ts'

const LEFT_OUT: Readonly<Record<string, string>> = {
  auth_sessions: 'last a quarter of an hour; clients begin new ones',
  issue_log: 'settled into keys and pools before the copy',
  meta: 'value by value (target.ts): the schema number and the database ID belong to one database',
  writers: 'counts the writes of one database, which its witnesses know',
}

/** Columns that PostgreSQL does not have, and why nothing is lost. */
const LEFT_OUT_COLUMNS: Readonly<Record<string, string>> = {
  'pools.first_num': 'becomes first_seq (key-log.ts)',
  'pools.digest': 'computed from the available keys, and compared after the copy',
  'one_time_keys.num': 'becomes seq (key-log.ts)',
  'one_time_keys.claimer_num': 'goes to issues (key-log.ts)',
}

const db = new DatabaseSync(':memory:')
addMigrationFunctions(db)
for (const sql of migrations) db.exec(sql)

const tables = db
  .prepare(`select name from sqlite_schema where type = 'table' and name not like 'sqlite_%' order by name`)
  .all()
  .map(({ name }) => String(name))
const copies = new Map(TABLE_COPIES.map((copy) => [copy.table, copy]))

test('every table of the embedded store is imported, or named as left out', () => {
  const imported = tables.filter((table) => copies.has(table))
  assert.deepEqual([...imported, ...Object.keys(LEFT_OUT)].sort(), tables)
})

test('every column of an imported table is imported, or named as left out', () => {
  const missing = tables.flatMap((table) => {
    const copy = copies.get(table)
    if (copy === undefined) return []
    return db
      .prepare(`select name from pragma_table_info(?)`)
      .all(table)
      .filter(({ name }) => !Object.hasOwn(copy.columns, String(name)))
      .map(({ name }) => `${table}.${name}`)
  })
  assert.deepEqual(missing.sort(), Object.keys(LEFT_OUT_COLUMNS).sort())
})
