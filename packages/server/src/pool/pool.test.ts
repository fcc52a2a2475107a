/** The bookkeeping of one pool during a request: what leaves, what enters, and the sums. */
import { key, keys, NOTHING_WANTED, poolFactsOf, poolWith } from '@latchkey/testing/pool-facts.ts'
import { emptyDigest, mixIn } from '@latchkey/protocol'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { shareOf } from './key.ts'
import { Pool } from './pool.ts'
import { fencePurge, IDENTITY_PURGE } from './purge.ts'

function digestOf(text: string): Uint8Array {
  const digest = emptyDigest()
  for (const { algorithm, keyId, material } of keys(text)) mixIn(digest, shareOf(algorithm, keyId, material))
  return digest
}

/** A pool whose facts list every key. */
function known(log: string, setup: { readonly fallbacks?: string; readonly former?: string } = {}): Pool {
  const wanted = { oneTimeKeys: keys(log.replaceAll(/:\w+/g, '')), keysPerPool: 0 }
  return poolWith({ log, ...setup }, wanted)
}

test('a pool that nothing happened to has no change', () => {
  const pool = known('A=a B=b:issued', { fallbacks: 'F=f' })
  assert.equal(pool.isChanged, false)
  assert.equal(pool.change(), undefined)
})

test('appended keys count, in their order', () => {
  const pool = known('A=a')
  pool.append(keys('C=c B=b'))
  assert.equal(pool.count, 3)
  assert.deepEqual(pool.digest, digestOf('A=a B=b C=c'))
  assert.deepEqual(
    pool.change()?.added.map(({ key: { keyId }, state }) => `${keyId} ${state}`),
    ['C available', 'B available'],
  )
})

test('a removed key is no longer available, and remembered by its removal', () => {
  const pool = known('A=a B=b C=c')
  pool.remove(pool.availableAmong(keys('A=a')), 'evicted')
  pool.remove(pool.availableAmong(keys('B=b')), 'withdrawn')
  assert.equal(pool.count, 1)
  assert.deepEqual(pool.digest, digestOf('C=c'))
  assert.equal(pool.byMaterial(key('A=a').hash)?.state, 'evicted')
  assert.equal(pool.byMaterial(key('B=b').hash), undefined, 'a withdrawn key may enter again')
  assert.equal(pool.byMaterial(key('C=c').hash)?.state, 'available')
  assert.deepEqual(pool.availableAmong(keys('A=a B=b')), [])
})

test('a cleared pool has no available key but the kept ones', () => {
  const wanted = { oneTimeKeys: keys('A=x B=x C=c') }
  const pool = poolWith({ log: 'A=a B=b C=c' }, wanted)
  assert.equal(pool.availableById(key('A=x').keyId)?.material, 'a')
  pool.clear('withdrawn', pool.availableAmong(keys('C=c')))
  assert.equal(pool.count, 1)
  assert.deepEqual(pool.digest, digestOf('C=c'))
  assert.equal(pool.availableById(key('A=x').keyId), undefined)
  assert.equal(pool.byMaterial(key('C=c').hash)?.state, 'available')
  assert.deepEqual(pool.change()?.cleared, { as: 'withdrawn', kept: [2] })
})

test('a pool of which every key is kept is not cleared', () => {
  const pool = known('A=a B=b')
  pool.clear('withdrawn', pool.availableAmong(keys('A=a B=b')))
  assert.equal(pool.change(), undefined)
})

test('the material of a key cleared by a purge stays known', () => {
  const pool = known('A=a')
  pool.clear('purged')
  assert.equal(pool.byMaterial(key('A=a').hash)?.state, 'purged')
})

test('a key that left before stays in its state when the pool is cleared', () => {
  const pool = known('A=a:issued B=b:evicted C=c')
  pool.clear('purged')
  assert.equal(pool.byMaterial(key('A=a').hash)?.state, 'issued')
  assert.equal(pool.byMaterial(key('B=b').hash)?.state, 'evicted')
})

test('eviction takes the oldest keys that are left, then those of the request', () => {
  const pool = known('A=a B=b')
  pool.append(keys('C=c D=d'))
  assert.deepEqual(pool.evict(3), ['A', 'B', 'C'])
  assert.equal(pool.count, 1)
  assert.deepEqual(pool.digest, digestOf('D=d'))
  assert.deepEqual(
    pool.change()?.added.map(({ state }) => state),
    ['evicted', 'available'],
  )
})

test('eviction passes over keys that the request removed', () => {
  const pool = known('A=a B=b C=c')
  pool.remove(pool.availableAmong(keys('A=a')), 'withdrawn')
  assert.deepEqual(pool.evict(1), ['B'])
})

test('eviction from a cleared pool takes the kept keys in upload order, regardless of the order in the request', () => {
  const pool = known('A=a B=b C=c')
  pool.clear('withdrawn', pool.availableAmong(keys('C=c B=b')))
  assert.deepEqual(pool.evict(1), ['B'])
})

test('a replaced fallback key is remembered as withdrawn, the new one is unused', () => {
  const pool = known('A=a', { fallbacks: 'F=f:used' })
  pool.replaceFallback(key('G=g'))
  assert.deepEqual(pool.fallback, { material: 'g', used: false })
  assert.equal(pool.wasFallback(key('F=f').hash), true)
  assert.equal(pool.wasFallback(key('G=g').hash), false)
  const change = pool.change()
  assert.deepEqual([change?.formerFallback, change?.fallback?.keyId], ['withdrawn', 'G'])
})

test('a purge that takes a fallback key only is a change', () => {
  const pool = poolWith({ log: 'A=a:issued', fallbacks: 'F=f' })
  pool.purge(fencePurge(true))
  assert.equal(pool.isChanged, true)
  assert.equal(pool.change()?.formerFallback, 'purged')
})

test('the first fallback key replaces none', () => {
  const pool = known('A=a')
  pool.replaceFallback(key('G=g'))
  assert.equal(pool.change()?.formerFallback, undefined)
})

test('a fallback key that follows a purge leaves the purged one remembered as purged', () => {
  const pool = known('A=a', { fallbacks: 'F=f' })
  pool.purge(IDENTITY_PURGE)
  pool.replaceFallback(key('G=g'))
  const change = pool.change()
  assert.deepEqual([change?.formerFallback, change?.fallback?.keyId], ['purged', 'G'])
})

test('a current fallback key is not a former one', () => {
  const fallbackKeys = keys('F=f E=e')
  const pool = poolWith({ fallbacks: 'F=f', former: 'E=e' }, { ...NOTHING_WANTED, fallbackKeys })
  assert.equal(pool.wasFallback(key('F=f').hash), false)
  assert.equal(pool.wasFallback(key('E=e').hash), true)
  pool.purge(fencePurge(false))
  assert.equal(pool.wasFallback(key('F=f').hash), false)
})

test('a request does not change its facts', () => {
  const facts = poolFactsOf({ log: 'A=a B=b', fallbacks: 'F=f' }, { oneTimeKeys: keys('A=a') })
  const before = structuredClone(facts)
  const pool = new Pool(facts, false)
  pool.append(keys('C=c'))
  pool.replaceFallback(key('G=g'))
  pool.clear('purged')
  assert.deepEqual(facts, before)
})
