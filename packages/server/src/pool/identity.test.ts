import { errorOf } from '@latchkey/testing/pool-facts.ts'
import type { DeviceId, KeyMaterial } from '@latchkey/protocol'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compareIdentity, givenUpBy, type Identity, type IdentityPart, identityOf } from './identity.ts'

/** `ed` or `ed curve`; `-` is an absent part. */
function id(text: string): Identity {
  const [ed25519, curve25519] = text.split(' ')
  return {
    ...(ed25519 !== undefined && ed25519 !== '-' && { ed25519: ed25519 as KeyMaterial }),
    ...(curve25519 !== undefined && { curve25519: curve25519 as KeyMaterial }),
  }
}

type Row = readonly [
  name: string,
  stored: string,
  uploaded: string,
  givenUp: readonly IdentityPart[],
  result: string,
]

const ROWS: readonly Row[] = [
  ['the same identity is the same', 'e1 c1', 'e1 c1', [], 'same'],
  ['from absent to present is not a change', '-', 'e1 c1', [], 'same'],
  ['a part that was absent is not a change', 'e1', 'e1 c1', [], 'same'],
  ['another ed25519 key is a change', 'e1 c1', 'e2 c1', [], 'changed'],
  ['another curve25519 key is a change', 'e1 c1', 'e1 c2', [], 'changed'],
  ['two other keys are a change', 'e1 c1', 'e2 c2', [], 'changed'],
  ['an identity without parts stays the same', '-', '-', [], 'same'],
  ['a dropped ed25519 key is refused', 'e1 c1', '- c1', [], '400 M_INVALID_PARAM'],
  ['a dropped curve25519 key is refused', 'e1 c1', 'e1', [], '400 M_INVALID_PARAM'],
  ['a given up ed25519 key is refused', 'e2 c2', 'e1 c3', ['ed25519'], '400 M_INVALID_PARAM'],
  ['a given up curve25519 key is refused', 'e2 c2', 'e3 c1', ['curve25519'], '400 M_INVALID_PARAM'],
  [
    'a given up part is refused where the device has none',
    'e2',
    'e2 c1',
    ['curve25519'],
    '400 M_INVALID_PARAM',
  ],
  ['a given up part that is current again is the same', 'e1 c1', 'e1 c1', ['ed25519', 'curve25519'], 'same'],
]

for (const [name, stored, uploaded, givenUp, result] of ROWS) {
  test(name, () => {
    const compare = (): string => {
      try {
        return compareIdentity(id(stored), id(uploaded), new Set(givenUp))
      } catch (error) {
        return errorOf(error)
      }
    }
    assert.equal(compare(), result)
  })
}

test('a device gives up the parts that a new identity replaces', () => {
  assert.deepEqual(givenUpBy(id('e1 c1'), id('e2 c2')), id('e1 c1'))
  assert.deepEqual(givenUpBy(id('e1 c1'), id('e1 c2')), { curve25519: 'c1' })
  assert.deepEqual(givenUpBy(id('- c1'), id('e2 c2')), { curve25519: 'c1' })
})

test('the identity is read from the keys named after the device', () => {
  const device = 'DEV' as DeviceId
  const keys = { 'ed25519:DEV': 'e', 'curve25519:DEV': 'c', 'ed25519:OTHER': 'x' }
  assert.deepEqual(identityOf({ keys }, device), { ed25519: 'e', curve25519: 'c' })
  assert.deepEqual(identityOf({ keys: { 'ed25519:DEV': 1 } }, device), {})
  assert.deepEqual(identityOf({ keys: 'none' }, device), {})
  assert.deepEqual(identityOf({}, device), {})
})

test('32 bytes of base64 are one key with and without padding', () => {
  const bytes = Buffer.alloc(32, 7).toString('base64')
  const identity = (key: string): Identity => identityOf({ keys: { 'ed25519:D': key } }, 'D' as DeviceId)
  assert.deepEqual(identity(bytes), identity(bytes.replaceAll('=', '')))
})
