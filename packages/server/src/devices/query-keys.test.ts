/** The part of a user's published keys that another user sees. */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import type { DeviceId, UserId } from '@latchkey/protocol'
import type { UserRef } from '../session.ts'
import type { KeySignature, PublishedKeys } from './port.ts'
import { visibleKeys } from './query-keys.ts'

const [ALICE, BOB, CAROL] = ['@alice:h', '@bob:h', '@carol:h'] as [UserId, UserId, UserId]

function signature(keyId: string, signer: UserId, text: string = signer): KeySignature {
  return { keyId, signer, signerKeyId: `ed25519:of ${signer}`, signature: text }
}

const PUBLISHED: PublishedKeys = {
  userRef: 1 as UserRef,
  devices: [
    { deviceId: 'A' as DeviceId, displayName: 'first', json: '{"n":1}' },
    { deviceId: 'B' as DeviceId, json: '{"n":2,"signatures":{"@alice:h":{"ed25519:of @alice:h":"old"}}}' },
  ],
  crossSigning: [
    { usage: 'master', publicKey: 'M', json: '{"n":3}' },
    { usage: 'self_signing', publicKey: 'S', json: '{"n":4}' },
    { usage: 'user_signing', publicKey: 'U', json: '{"n":5}' },
  ],
  signatures: [
    signature('B', ALICE, 'new'),
    signature('M', ALICE),
    signature('M', BOB),
    signature('M', CAROL),
  ],
}

test('a cross-signing key that an earlier version stored shows no signature of a removed device or another user', () => {
  const signatures = {
    '@alice:h': { 'ed25519:A': 'device', 'ed25519:GONE': 'removed', 'ed25519:M': 'master' },
    '@bob:h': { 'ed25519:B': 'other' },
  }
  const crossSigning = [{ usage: 'master' as const, publicKey: 'M', json: JSON.stringify({ signatures }) }]
  const shown = visibleKeys({ ...PUBLISHED, crossSigning, signatures: [] }, ALICE, [], BOB).crossSigning
  assert.deepEqual(shown.get('master'), {
    signatures: { '@alice:h': { 'ed25519:A': 'device', 'ed25519:M': 'master' } },
  })
})

const signersOf = (object: unknown): string[] =>
  Object.keys((object as { signatures?: object } | undefined)?.signatures ?? {})

describe('published keys', () => {
  test('show every device when none is named', () =>
    assert.deepEqual(Object.keys(visibleKeys(PUBLISHED, ALICE, [], BOB).devices), ['A', 'B']))

  test('show the named devices that exist', () =>
    assert.deepEqual(Object.keys(visibleKeys(PUBLISHED, ALICE, ['B', 'X'], BOB).devices), ['B']))

  test('have the display name next to the signed object', () => {
    const { devices } = visibleKeys(PUBLISHED, ALICE, [], BOB)
    assert.deepEqual(devices['A'], { n: 1, unsigned: { device_display_name: 'first' } })
    assert.deepEqual(devices['B']?.['unsigned'], {})
  })

  test('have an added signature in place of an earlier one of the same key', () =>
    assert.deepEqual(visibleKeys(PUBLISHED, ALICE, [], BOB).devices['B']?.['signatures'], {
      [ALICE]: { [`ed25519:of ${ALICE}`]: 'new' },
    }))

  const rows = [
    ['everyone sees the owner’s signatures and their own', BOB, ['master', 'self_signing'], [ALICE, BOB]],
    [
      'the owner sees the user-signing key, and no signatures of others',
      ALICE,
      ['master', 'self_signing', 'user_signing'],
      [ALICE],
    ],
    ['a third user sees neither', '@dave:h' as UserId, ['master', 'self_signing'], [ALICE]],
  ] as const
  for (const [name, viewer, usages, signers] of rows) {
    test(name, () => {
      const { crossSigning } = visibleKeys(PUBLISHED, ALICE, [], viewer)
      assert.deepEqual([...crossSigning.keys()], usages)
      assert.deepEqual(signersOf(crossSigning.get('master')), signers)
    })
  }
})
