import { key, keys, poolWith } from '@latchkey/testing/pool-facts.ts'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decideFallback, requireOnePerAlgorithm } from './fallback.ts'
import { IDENTITY_PURGE } from './purge.ts'

const ROWS = [
  ['the first fallback key of a pool is stored', { log: 'A=a' }, 'F=f', 'stored'],
  ['another fallback key is stored', { fallbacks: 'F=f' }, 'G=g', 'stored'],
  ['the same material again is already stored', { fallbacks: 'F=f' }, 'F=f', 'already_stored'],
  ['the same material under another ID is already stored', { fallbacks: 'F=f' }, 'G=f', 'already_stored'],
  ['the same material after a use is already stored', { fallbacks: 'F=f:used' }, 'F=f', 'already_stored'],
  [
    'material that was replaced or purged before is already replaced',
    { fallbacks: 'G=g', former: 'F=f' },
    'F=f',
    'already_replaced',
  ],
  [
    'material that was purged before is already replaced, with no fallback key left',
    { former: 'F=f' },
    'F=f',
    'already_replaced',
  ],
  [
    'material of a one-time key is stored: the namespaces are separate',
    { log: 'A=a:issued' },
    'A=a',
    'stored',
  ],
] as const

for (const [name, setup, upload, outcome] of ROWS) {
  test(name, () => {
    const fallbackKeys = keys(upload)
    assert.equal(
      decideFallback(key(upload), poolWith(setup, { fallbackKeys }), () => false),
      outcome,
    )
  })
}

test('a fallback key that the same request replaced or purged is already replaced', () => {
  const fallbackKeys = keys('F=f')
  const replaced = poolWith({ fallbacks: 'F=f' }, { fallbackKeys })
  replaced.replaceFallback(key('G=g'))
  assert.equal(
    decideFallback(key('F=f'), replaced, () => false),
    'already_replaced',
  )
  const purged = poolWith({ fallbacks: 'F=f' }, { fallbackKeys })
  purged.purge(IDENTITY_PURGE)
  assert.equal(
    decideFallback(key('F=f'), purged, () => false),
    'already_replaced',
  )
  assert.equal(
    decideFallback(key('G=g'), purged, () => false),
    'stored',
  )
})

test('two fallback keys for one algorithm in one request are 400, for two algorithms they are not', () => {
  requireOnePerAlgorithm(keys('F=f x/F=f'))
  assert.throws(() => requireOnePerAlgorithm(keys('F=f x/G=g G=g')), {
    status: 400,
    errcode: 'M_INVALID_PARAM',
    message:
      'fallback_keys has two keys for one algorithm: "signed_curve25519:F" and "signed_curve25519:G"; expected at most one.',
  })
})
