import { keys, outcomesOf, poolWith } from '@latchkey/testing/pool-facts.ts'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { heal } from './heal.ts'
import { decideOutcomes } from './outcomes.ts'

const ROWS = [
  {
    name: 'keys that the batch does not repeat are purged',
    log: 'A=a B=b',
    upload: 'A=c',
    outcomes: 'A stored',
    removed: [],
    kept: [],
  },
  {
    name: 'a key that the batch repeats is withdrawn and stored again',
    log: 'A=a B=b',
    upload: 'A=c B=b',
    outcomes: 'A stored, B stored',
    removed: [[1, 'withdrawn']],
    kept: [],
  },
  {
    name: 'a key that the batch repeats under another ID is withdrawn and stored under that ID',
    log: 'A=a B=b',
    upload: 'A=b',
    outcomes: 'A stored',
    removed: [[1, 'withdrawn']],
    kept: [],
  },
  {
    name: 'keys that were issued or removed before keep their state and are not stored again',
    log: 'A=a B=b:issued C=c:purged D=d:evicted',
    upload: 'A=a2 B=b C=c D=d',
    outcomes: 'A stored, B already_issued, C already_removed, D already_removed',
    removed: [],
    kept: [],
  },
] as const

for (const { name, log, upload, outcomes, removed, kept } of ROWS) {
  test(name, () => {
    const oneTimeKeys = keys(upload)
    const pool = poolWith({ log }, { oneTimeKeys })
    heal(pool, oneTimeKeys)
    const decision = decideOutcomes(oneTimeKeys, pool, () => false)
    assert.equal(outcomesOf({ ...decision, fallbackOutcomes: new Map(), evicted: [] }), outcomes)
    const change = pool.change()
    assert.deepEqual([...(change?.removed ?? [])], removed)
    assert.deepEqual(change?.cleared, { as: 'purged', kept })
    assert.equal(pool.count, 0, 'the pool is empty before the batch is appended')
  })
}

test('a heal keeps the fallback key and shows the issued keys', () => {
  const oneTimeKeys = keys('A=b')
  const pool = poolWith({ log: 'A=a', fallbacks: 'F=f' }, { oneTimeKeys })
  heal(pool, oneTimeKeys)
  const change = pool.change()
  assert.equal(pool.fallback?.material, 'f')
  assert.deepEqual([change?.formerFallback, change?.hidesIssued], [undefined, false])
})
