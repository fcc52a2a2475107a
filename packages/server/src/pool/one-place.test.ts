import {
  decideResetOn,
  decideUploadOn,
  deviceWith,
  keys,
  logOf,
  NOW,
  outcomesOf,
  refusalOf,
  save,
  type UploadSetup,
} from '@latchkey/testing/pool-facts.ts'
import type { KeyMaterial } from '@latchkey/protocol'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { tryOf } from './conflict.ts'

/** Curve25519 keys in base64. */
const X = 'E'.repeat(43)
const Y = 'I'.repeat(43)
const Z = 'M'.repeat(43)

type Row = readonly [
  name: string,
  device: Parameters<typeof deviceWith>[0],
  upload: UploadSetup,
  answer: string,
]

const ROWS: readonly Row[] = [
  [
    'a key under two algorithms of one request is stored under the first',
    {},
    { keys: `x/A=${X} A=${X}` },
    'A stored, x/A in_use_elsewhere',
  ],
  [
    'a one-time key of the request is not stored as a fallback key',
    {},
    { keys: `A=${X}`, fallbacks: `F=${X}` },
    'A stored, F fallback in_use_elsewhere',
  ],
  [
    'a fallback key under two algorithms of one request is stored once',
    {},
    { fallbacks: `F=${X} x/F=${X}` },
    'F fallback stored, x/F fallback in_use_elsewhere',
  ],
  ...(['', ':issued', ':evicted', ':purged'] as const).flatMap((state): Row[] => [
    [
      `a one-time key${state} is not stored under another algorithm`,
      { log: `x/A=${X}${state}` },
      { keys: `A=${X}` },
      'A in_use_elsewhere',
    ],
    [
      `a one-time key${state} is not stored as a fallback key of its algorithm`,
      { log: `A=${X}${state}` },
      { fallbacks: `F=${X}` },
      'F fallback in_use_elsewhere',
    ],
    [
      `a one-time key${state} is not stored as a fallback key of another algorithm`,
      { log: `x/A=${X}${state}` },
      { fallbacks: `F=${X}` },
      'F fallback in_use_elsewhere',
    ],
  ]),
  ['a withdrawn key may enter another pool', { log: `x/A=${X}:withdrawn` }, { keys: `A=${X}` }, 'A stored'],
  [
    'a withdrawn key may become a fallback key',
    { log: `A=${X}:withdrawn` },
    { fallbacks: `F=${X}` },
    'F fallback stored',
  ],
  [
    'a fallback key is not stored as a one-time key',
    { fallbacks: `F=${X}` },
    { keys: `A=${X}` },
    'A in_use_elsewhere',
  ],
  [
    'a fallback key of another algorithm is not stored as a one-time key',
    { fallbacks: `x/F=${X}` },
    { keys: `A=${X}` },
    'A in_use_elsewhere',
  ],
  [
    'a former fallback key is not stored as a one-time key',
    { former: `F=${X}` },
    { keys: `A=${X}` },
    'A in_use_elsewhere',
  ],
  [
    'a former fallback key of another algorithm is not a new one',
    { former: `x/F=${X}` },
    { fallbacks: `F=${X}` },
    'F fallback in_use_elsewhere',
  ],
  [
    'a fallback key that the request replaces is not stored as a one-time key',
    { fallbacks: `F=${X}` },
    { keys: `A=${X}`, fallbacks: `F=${Y}` },
    'A in_use_elsewhere, F fallback stored',
  ],
  [
    'a key with a place elsewhere does not conflict',
    { log: `x/A=${X} A=${Y}` },
    { keys: `A=${X}` },
    'A in_use_elsewhere',
  ],
  [
    'a key with a place in its own pool, too, has the outcome of that place',
    { log: `x/A=${X} A=${X}` },
    { keys: `A=${X}` },
    'A already_stored',
  ],
  [
    'placeholders are compared within their algorithm and kind',
    { log: 'y/A=a', former: 'y/F=f' },
    { keys: 'x/A=a A=a B=f', fallbacks: 'F=a x/F=f' },
    'A stored, B stored, x/A stored, F fallback stored, x/F fallback stored',
  ],
]

for (const [name, setup, upload, answer] of ROWS) {
  test(name, () => {
    const device = deviceWith(setup)
    assert.equal(outcomesOf(save(device, decideUploadOn(device, upload))), answer)
  })
}

test('a change of identity purges keys, which do not enter another pool', () => {
  const identity = (name: string): Record<'ed25519', KeyMaterial> => ({ ed25519: name as KeyMaterial })
  const device = deviceWith({
    log: `x/A=${X}`,
    fallbacks: `x/F=${Y}`,
    deviceKeys: 'first',
    identity: identity('one'),
  })
  save(device, decideUploadOn(device, { identity: identity('two') }))
  device.identityChanged = false
  const answer = save(device, decideUploadOn(device, { keys: `A=${X} B=${Y}` }))
  assert.equal(outcomesOf(answer), 'A in_use_elsewhere, B in_use_elsewhere')
})

test('an algorithm none of whose keys was stored is not listed', () => {
  const device = deviceWith({ log: `A=${X}` })
  const { status } = save(device, decideUploadOn(device, { keys: `x/A=${X}`, fallbacks: `y/F=${X}` }))
  assert.deepEqual(
    status.algorithms.map(({ algorithm }) => algorithm as string),
    ['signed_curve25519'],
  )
  assert.deepEqual([status.version, device.pools.size], [7, 1])
})

test('a heal of two pools stores a key that both batches have once', () => {
  const upload = { keys: `A=${X} x/A=${X} x/B=${Z}` }
  const refused = tryOf(keys(upload.keys), NOW - 2_000)
  const device = deviceWith({ log: `A=${Y} x/A=xa x/B=xb`, refused })
  const decision = decideUploadOn(device, upload)
  assert.equal(refusalOf(decision), undefined)
  assert.equal(outcomesOf(save(device, decision)), 'A stored, x/A in_use_elsewhere, x/B stored')
  assert.equal(logOf(device), `A=${Y}:purged A=${X} x/A=xa:purged x/B=xb:purged x/B=${Z}`)
})

test('a reset moves a key that it withdraws, and no key that it leaves', () => {
  const device = deviceWith({ log: `x/A=${X} x/B=${Y}` })
  const reset = { withdraw: 'x/A', keys: `A=${X} B=${Y}`, fallbacks: `F=${Y}` }
  const { result } = save(device, decideResetOn(device, reset))
  assert.equal(outcomesOf(result), 'A stored, B in_use_elsewhere, F fallback in_use_elsewhere')
  assert.equal(logOf(device), `x/A=${X}:withdrawn x/B=${Y} A=${X}`)
})
