/** The names of claimers are deleted after the records of their claims, and a number is never given to another name. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { DEFAULT_CONFIG, storeOptions } from '../../src/config/config.ts'
import { createCore } from '../../src/store/sqlite/core.ts'
import { openDatabase } from '../../src/store/sqlite/open-database.ts'
import { sweepOnce } from '../../src/store/sqlite/sweep.ts'

const DAY_MS = 24 * 60 * 60 * 1000

function openClaimers() {
  const directory = mkdtempSync(join(tmpdir(), 'latchkey-claimers-'))
  const db = openDatabase(directory)
  const core = createCore(db, { ...storeOptions(DEFAULT_CONFIG), now: Date.now, onFence: () => {} })
  return {
    core,
    db,
    claim: (name: string, now: number): Promise<number> =>
      core.queue.plain((tx) => core.claimers.numOf(tx, name, now)),
    sweep: (cutoff: number): Promise<number> => sweepOnce(core, cutoff, cutoff, 0),
    names: (): string[] =>
      db.all<{ name: string }>(`select name from claimers order by claimer_num`).map(({ name }) => name),
    [Symbol.dispose]() {
      db.close()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

test('a claimer is forgotten when all records of its claims are past the retention', async () => {
  using open = openClaimers()
  assert.equal(await open.claim('idle', 0), 1)
  assert.equal(await open.claim('active', 0), 2)
  // Not noted again, because the note is fresh.
  assert.equal(await open.claim('idle', DAY_MS - 1), 1)
  assert.equal(await open.claim('active', 10 * DAY_MS), 2)
  assert.equal(await open.claim('newest', 0), 3)
  await open.sweep(DAY_MS)
  assert.deepEqual(open.names(), ['idle', 'active', 'newest'], 'a record of "idle" is kept')
  await open.sweep(DAY_MS + 1)
  assert.deepEqual(open.names(), ['active', 'newest'])
})

test('a name that is swept while the process remembers it gets a number of its own again', async () => {
  using open = openClaimers()
  await open.claim('gone', 0)
  await open.claim('other', 0)
  await open.claim('newest', 0)
  await open.sweep(10 * DAY_MS)
  assert.deepEqual(open.names(), ['newest'], 'numbers continue from the newest')
  // The clock of the claim is behind that of the sweep.
  assert.equal(await open.claim('gone', 1), 4)
  assert.deepEqual(open.names(), ['newest', 'gone'])
  await open.sweep(20 * DAY_MS)
  assert.deepEqual(open.names(), ['gone'])
  assert.equal(await open.claim('other', 20 * DAY_MS), 5)
})

test('a step deletes a bounded number of names, found by their index', async () => {
  using open = openClaimers()
  for (let n = 0; n < 1_002; n++) void open.claim(`name ${n}`, 0)
  await open.sweep(10 * DAY_MS)
  assert.equal(open.names().length, 502)
  await open.sweep(10 * DAY_MS)
  assert.equal(open.names().length, 2)
  await open.sweep(10 * DAY_MS)
  assert.deepEqual(open.names(), ['name 1001'])
})
