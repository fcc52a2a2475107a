import { deviceWith, NOTHING_WANTED } from '@latchkey/testing/pool-facts.ts'
import { loadFacts } from '@latchkey/testing/memory-device.ts'
import { base64Url } from '@latchkey/protocol'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { PoolStatus } from './commands.ts'
import { DevicePools } from './device-pools.ts'
import { keyHash } from './key.ts'
import { countsOf, keyPoolOf, unusedFallbackTypes } from './pool-answer.ts'
import type { KeyMaterial } from '@latchkey/protocol'

function statusOf(setup: Parameters<typeof deviceWith>[0]): PoolStatus {
  return new DevicePools(loadFacts(deviceWith(setup), NOTHING_WANTED)).status()
}

const EMPTY_DIGEST = base64Url(new Uint8Array(32))

test('signed_curve25519 is listed with 0 keys for a device that has none', () => {
  const status = statusOf({})
  assert.deepEqual(countsOf(status), { signed_curve25519: 0 })
  assert.deepEqual(unusedFallbackTypes(status), [])
  assert.deepEqual(keyPoolOf(status), {
    epoch: 'epoch',
    version: 7,
    generation: 3,
    digest: { signed_curve25519: EMPTY_DIGEST },
    fallback: {},
  })
})

test('every algorithm with keys or history is listed, 0 included', () => {
  const status = statusOf({ log: 'y/A=a:issued x/B=b x/C=c', fallbacks: 'z/F=f' })
  assert.deepEqual(countsOf(status), { signed_curve25519: 0, x: 2, y: 0, z: 0 })
  assert.deepEqual(
    status.algorithms.map(({ algorithm }) => algorithm as string),
    ['x', 'y', 'z'],
    'in code-point order',
  )
  const { digest } = keyPoolOf(status)
  assert.equal(digest['y'], EMPTY_DIGEST)
  assert.notEqual(digest['x'], EMPTY_DIGEST)
})

test('fallback keys are listed by hash, and as unused until a claim uses them', () => {
  const status = statusOf({ fallbacks: 'F=f x/G=g:used' })
  assert.deepEqual(unusedFallbackTypes(status), ['signed_curve25519'])
  assert.deepEqual(keyPoolOf(status).fallback, {
    signed_curve25519: keyHash('f' as KeyMaterial),
    x: keyHash('g' as KeyMaterial),
  })
})
