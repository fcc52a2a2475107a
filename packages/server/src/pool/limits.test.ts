import { type Algorithm, SIGNED_CURVE25519 } from '@latchkey/protocol'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { requireAlgorithms, tooFast } from './limits.ts'

const ROWS = [
  ['a new algorithm up to the limit is allowed', ['a', 'b'], ['c'], true],
  ['a new algorithm over the limit is refused', ['a', 'b', 'c'], ['d'], false],
  ['a known algorithm is allowed at the limit', ['a', 'b', 'c'], ['a', 'b'], true],
  ['new algorithms of one request count together', ['a', 'b'], ['c', 'd'], false],
  ['an algorithm that is named twice counts once', ['a', 'b'], ['c', 'c'], true],
  ['signed_curve25519 is never excluded by others', ['a', 'b', 'c'], [SIGNED_CURVE25519], true],
  ['signed_curve25519 counts like the others', ['a', 'b', SIGNED_CURVE25519], ['c'], false],
  ['a new signed_curve25519 counts like the others', ['a', 'b'], [SIGNED_CURVE25519, 'c'], false],
] as const

for (const [name, known, wanted, allowed] of ROWS) {
  test(`${name} (3 algorithms per device)`, () => {
    const require = (): void =>
      requireAlgorithms(new Set(known as unknown as Algorithm[]), wanted as never, 3)
    if (allowed) require()
    else
      assert.throws(require, {
        status: 400,
        errcode: 'M_INVALID_PARAM',
        message: 'This device has keys for 3 algorithms, which is the limit.',
      })
  })
}

test('a rate limit asks for its wait, and for at most 2 s, because SDKs sleep through Retry-After', () => {
  assert.deepEqual(tooFast('resets its keys', 1_500).extra, { retry_after_ms: 1_500 })
  const error = tooFast('resets its keys', 60_000)
  assert.deepEqual([error.status, error.extra], [429, { retry_after_ms: 2_000 }])
  assert.equal(error.message, 'This device resets its keys too often.')
})
