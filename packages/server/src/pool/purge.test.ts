import { poolWith } from '@latchkey/testing/pool-facts.ts'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fencePurge, IDENTITY_PURGE, REMOVAL_PURGE } from './purge.ts'

const ROWS = [
  ['a changed identity', IDENTITY_PURGE, { fallbackKeys: true, hidesIssued: true }],
  ['a removed device', REMOVAL_PURGE, { fallbackKeys: true, hidesIssued: true }],
  ['a raised fence', fencePurge(false), { fallbackKeys: false, hidesIssued: false }],
  ['a raised fence after a long loss', fencePurge(true), { fallbackKeys: true, hidesIssued: false }],
] as const

for (const [cause, rule, { fallbackKeys, hidesIssued }] of ROWS) {
  test(`${cause} purges every available key${fallbackKeys ? ' and the fallback key' : ''}${hidesIssued ? ', and hides issued keys' : ''}`, () => {
    const pool = poolWith({ log: 'A=a:issued B=b C=c', fallbacks: 'F=f:used' })
    pool.purge(rule)
    const change = pool.change()
    assert.deepEqual(change?.cleared, { as: 'purged', kept: [] })
    assert.equal(pool.count, 0)
    assert.deepEqual(pool.digest, new Uint8Array(32))
    assert.equal(change?.hidesIssued, hidesIssued)
    assert.equal(change?.formerFallback, fallbackKeys ? 'purged' : undefined)
    assert.deepEqual(pool.fallback, fallbackKeys ? undefined : { material: 'f', used: true })
  })
}

test('a purge of an empty pool without a fallback key changes only what it hides', () => {
  const pool = poolWith({ log: 'A=a:issued' })
  pool.purge(fencePurge(true))
  assert.equal(pool.change(), undefined)
  pool.purge(IDENTITY_PURGE)
  assert.deepEqual([pool.change()?.cleared, pool.change()?.hidesIssued], [undefined, true])
})
