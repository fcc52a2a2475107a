/** Migrations of the embedded database that compute: what an older version stored means the same afterwards. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { test } from 'node:test'
import { transactionRecord } from '../../src/messages/transaction-memory.ts'
import { migrations } from '../../src/store/sqlite/migrations/index.ts'
import { openDatabase } from '../../src/store/sqlite/open-database.ts'

/** Makes a database of an older schema. */
function olderDatabase(directory: string, schema: number, fill: (db: DatabaseSync) => void): void {
  const db = new DatabaseSync(join(directory, 'latchkey.db'))
  for (const sql of migrations.slice(0, schema)) db.exec(sql)
  db.exec(`pragma user_version = ${schema}`)
  fill(db)
  db.close()
}

test('a transaction that was sent before the upgrade to fixed-size records is still a repeat', () => {
  const directory = mkdtempSync(join(tmpdir(), 'latchkey-migrations-'))
  try {
    const sent = [
      ['m.room_key', 'x'.repeat(255)],
      ['é', '\u{1F511}'],
    ] as const
    olderDatabase(directory, 3, (db) => {
      const insert = db.prepare(
        `insert into sent_transactions (device_num, transaction_id, ts) values (1, ?, ?)`,
      )
      for (const [ts, [type, id]] of sent.entries()) insert.run(`${type}\0${id}`, ts)
    })
    const db = openDatabase(directory)
    const rows = db.all<{ transaction_id: string }>(
      `select transaction_id from sent_transactions order by ts`,
    )
    db.close()
    assert.deepEqual(
      rows.map((row) => row.transaction_id),
      sent.map(([type, id]) => transactionRecord(type, id)),
    )
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
})
