import assert from 'node:assert/strict'
import test from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { TokenBuckets } from './token-bucket.ts'

const START = 1_700_000_000_000

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

function heapUsedAfterCollection(): number {
  collect()
  return process.memoryUsage().heapUsed
}

test('a bucket gives its burst at once, then only refilled tokens', () => {
  const buckets = new TokenBuckets({ burst: 2, perSecond: 0.5 })
  assert.deepEqual(
    [buckets.take('a', START), buckets.take('a', START), buckets.take('a', START)],
    [0, 0, 2000],
  )
  assert.equal(buckets.take('a', START + 1999) > 0, true)
  assert.equal(buckets.take('a', START + 2000), 0)
  assert.equal(buckets.take('b', START), 0)
})

test('peeking takes nothing', () => {
  const buckets = new TokenBuckets({ burst: 1, perSecond: 1 })
  assert.deepEqual([buckets.peek('a', START), buckets.peek('a', START), buckets.take('a', START)], [0, 0, 0])
  assert.equal(buckets.peek('a', START), 1000)
})

test('an amount is taken whole or not at all', () => {
  const buckets = new TokenBuckets({ burst: 10, perSecond: 2 })
  const waits = [buckets.take('a', START, 7), buckets.take('a', START, 7), buckets.take('a', START, 3)]
  assert.deepEqual(waits, [0, 2000, 0])
  buckets.refund('a', 5)
  assert.deepEqual([buckets.peek('a', START, 6), buckets.take('a', START, 5)], [500, 0])
})

test('an amount above the burst needs a full bucket, and is paid back', () => {
  const buckets = new TokenBuckets({ burst: 10, perSecond: 2 })
  assert.deepEqual([buckets.take('a', START, 30), buckets.take('a', START)], [0, 10_500])
  assert.equal(buckets.take('a', START + 14_999, 30) > 0, true)
  assert.equal(buckets.take('a', START + 15_000, 30), 0)
})

test('a charge is taken whether it is available or not', () => {
  const buckets = new TokenBuckets({ burst: 10, perSecond: 2 })
  buckets.charge('a', START, 14)
  assert.deepEqual([buckets.peek('a', START), buckets.take('a', START + 2500)], [2500, 0])
})

test('a clock that is adjusted backwards neither fills a bucket nor stops it from refilling', () => {
  const buckets = new TokenBuckets({ burst: 1, perSecond: 1 })
  buckets.take('a', START)
  assert.equal(buckets.take('a', START - 3_600_000), 1000)
  assert.equal(buckets.take('a', START - 3_600_000 + 1000), 0)
})

test('a flood of new keys does not evict an empty bucket', () => {
  const buckets = new TokenBuckets({ burst: 1, perSecond: 0.001 }, 100)
  buckets.take('victim', START)
  for (let i = 0; i < 10_000; i++) assert.equal(buckets.take(`new ${i}`, START + i * 10), 0)
  assert.ok(buckets.take('victim', START + 100_000) > 0)
})

test('a full table accepts new keys again once buckets have refilled', () => {
  const buckets = new TokenBuckets({ burst: 1, perSecond: 0.01 }, 2)
  buckets.take('a', START)
  buckets.take('b', START + 50_000)
  const uncounted = [buckets.take('c', START + 60_000), buckets.take('c', START + 60_000)]
  assert.deepEqual(uncounted, [0, 0])
  const later = START + 101_000
  assert.deepEqual([buckets.take('c', later), buckets.take('c', later) > 0], [0, true])
  assert.ok(buckets.take('b', later) > 0, 'the refilling bucket is kept')
})

test('keys of any length are distinguished, and long ones are not stored', () => {
  const buckets = new TokenBuckets({ burst: 1, perSecond: 0.001 })
  const long = 'x'.repeat(1_000_000)
  assert.equal(buckets.take(`${long}a`, START), 0)
  assert.equal(buckets.take(`${long}b`, START), 0)
  assert.ok(buckets.take(`${long}a`, START) > 0)
  const before = heapUsedAfterCollection()
  for (let i = 0; i < 100; i++) buckets.take(`${i}${long}`, START)
  assert.ok(heapUsedAfterCollection() - before < 10_000_000)
  assert.ok(buckets.take(`99${long}`, START) > 0)
})

test('a refused take returns the time until the next token, which is there exactly then', () => {
  const buckets = new TokenBuckets({ burst: 1, perSecond: 2 })
  const waits = [0, 0, 250, 500, 501].map((ms) => buckets.take('a', 1_000 + ms))
  assert.deepEqual(waits, [0, 500, 250, 0, 499])
})
