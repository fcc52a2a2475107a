/**
 * The names of claimers are deleted after the records of their claims, also while other processes remember their
 * numbers. Needs LATCHKEY_TEST_POSTGRES (@latchkey/testing/test-schema.ts).
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { openTestSchema, skipWithoutPostgres as skip } from '@latchkey/testing/test-schema.ts'
import { DEFAULT_CONFIG, postgresConnection, postgresOptions } from '../../src/config/config.ts'
import { Claimers } from '../../src/store/postgres/claimers.ts'
import { Postgres } from '../../src/store/postgres/database.ts'
import { openPostgresStore } from '../../src/store/postgres/index.ts'
import { START, sweepOnce } from '../../src/store/postgres/sweep.ts'

const DAY_MS = 24 * 60 * 60 * 1000

async function openDatabase() {
  const schema = await openTestSchema(randomBytes(8).toString('hex'))
  assert.ok(schema)
  const config = { ...DEFAULT_CONFIG, database: schema.database }
  const store = await openPostgresStore({ ...postgresOptions(config), now: Date.now })
  const db = new Postgres({ ...postgresConnection(config), connections: 4 })
  return {
    db,
    sweep: (cutoff: number): Promise<unknown> => sweepOnce({ db }, cutoff, cutoff, START),
    async rows(): Promise<[string, number][]> {
      const rows = await db.all<{ name: string; claimer_num: number }>(
        `select name, claimer_num from claimers`,
      )
      return rows.map(({ name, claimer_num: num }): [string, number] => [name, num]).sort()
    },
    async [Symbol.asyncDispose]() {
      await store.close()
      await db.close()
      await schema.drop()
    },
  }
}

test('a claimer is forgotten when all records of its claims are past the retention', { skip }, async () => {
  await using open = await openDatabase()
  const claimers = new Claimers(open.db)
  const idle = await claimers.numOf('idle', 0)
  const active = await claimers.numOf('active', 0)
  // Not noted again, because the note is fresh.
  assert.equal(await claimers.numOf('idle', DAY_MS - 1), idle)
  assert.equal(await claimers.numOf('active', 10 * DAY_MS), active)
  await open.sweep(DAY_MS)
  assert.deepEqual(await open.rows(), [
    ['active', active],
    ['idle', idle],
  ])
  await open.sweep(DAY_MS + 1)
  assert.deepEqual(await open.rows(), [['active', active]])
})

test('a process that remembers a number uses none that the sweep of another one deleted', {
  skip,
}, async () => {
  await using open = await openDatabase()
  const [one, two] = [new Claimers(open.db), new Claimers(open.db)]
  const first = await one.numOf('bob', 0)
  assert.equal(await two.numOf('bob', 1), first)
  // Another process notes a later claim; the number stays, for both.
  assert.equal(await two.numOf('bob', 5 * DAY_MS), first)
  await open.sweep(5 * DAY_MS)
  assert.equal(await one.numOf('bob', 5 * DAY_MS), first)
  await open.sweep(7 * DAY_MS)
  assert.deepEqual(await open.rows(), [])
  const again = await Promise.all([one, two, one, two].map((claimers) => claimers.numOf('bob', 7 * DAY_MS)))
  assert.deepEqual(await open.rows(), [['bob', again[0]]])
  assert.equal(new Set(again).size, 1)
  assert.notEqual(again[0], first)
})

test('a claim that notes a name while it is swept has a row afterwards', { skip }, async () => {
  await using open = await openDatabase()
  for (let round = 1; round <= 20; round++) {
    const now = round * 10 * DAY_MS
    const [num] = await Promise.all([new Claimers(open.db).numOf('bob', now), open.sweep(now)])
    assert.deepEqual(await open.rows(), [['bob', num]])
  }
})

test('a step deletes a bounded number of names', { skip }, async () => {
  await using open = await openDatabase()
  await open.db.run(
    `insert into claimers (name, noted_ts) select i::text, 0 from generate_series(1, 700) as i`,
  )
  await open.sweep(10 * DAY_MS)
  assert.equal((await open.rows()).length, 200)
})
