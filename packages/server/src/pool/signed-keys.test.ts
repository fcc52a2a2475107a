import { errorOf, SESSION } from '@latchkey/testing/pool-facts.ts'
import { signingKeyPair } from '@latchkey/testing/signing.ts'
import type { KeyMaterial } from '@latchkey/protocol'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Identity } from './identity.ts'
import type { UploadedKey } from './key.ts'
import { requireSignedDeviceKeys, SignatureChecks } from './signed-keys.ts'

const { userId, deviceId } = SESSION
const PAIR = signingKeyPair()
const IDENTITY = identityOf(PAIR.publicKey)
const OTHER = identityOf(signingKeyPair().publicKey)

function identityOf(publicKey: string): Identity {
  return { ed25519: publicKey as KeyMaterial }
}

function key(id: string, object: unknown): UploadedKey {
  const json = JSON.stringify(object)
  return { algorithm: 'signed_curve25519', keyId: id, material: id, json } as unknown as UploadedKey
}

const SIGNED = key('A', PAIR.sign(userId, { key: 'a' }, deviceId))

const ROWS: readonly (readonly [string, readonly UploadedKey[], Identity, string])[] = [
  ['a signed key', [SIGNED], IDENTITY, 'accepted'],
  ['a request without keys', [], OTHER, 'accepted'],
  ['a key signed by another identity', [SIGNED], OTHER, '400 M_INVALID_SIGNATURE'],
  ['a key for a device without an ed25519 key', [SIGNED], {}, '400 M_INVALID_SIGNATURE'],
  ['an unsigned key', [key('B', { key: 'b' })], IDENTITY, '400 M_INVALID_SIGNATURE'],
  [
    'an unsigned key after a signed one',
    [SIGNED, key('B', { key: 'b' })],
    IDENTITY,
    '400 M_INVALID_SIGNATURE',
  ],
  ['a key that is a string', [key('B', 'b')], IDENTITY, '400 M_INVALID_SIGNATURE'],
  [
    'a key signed under the name of another device',
    [key('B', PAIR.sign(userId, { key: 'b' }, 'OTHER'))],
    IDENTITY,
    '400 M_INVALID_SIGNATURE',
  ],
  [
    'a key signed for another user',
    [key('B', PAIR.sign('@bob:test.example', { key: 'b' }, deviceId))],
    IDENTITY,
    '400 M_INVALID_SIGNATURE',
  ],
  [
    'a key that was changed after it was signed',
    [key('B', { ...PAIR.sign(userId, { key: 'a' }, deviceId), key: 'b' })],
    IDENTITY,
    '400 M_INVALID_SIGNATURE',
  ],
  [
    'a key without a canonical form',
    [key('B', { ...PAIR.sign(userId, { key: 'a' }, deviceId), n: 1.5 })],
    IDENTITY,
    '400 M_INVALID_SIGNATURE',
  ],
]

for (const [name, keys, identity, result] of ROWS) {
  test(`${name}: ${result}`, async () => {
    const checks = new SignatureChecks(keys, SESSION)
    await checks.check(identity)
    const require = (): string => {
      try {
        return checks.require(identity) === undefined ? 'accepted' : 'not checked'
      } catch (error) {
        return errorOf(error)
      }
    }
    assert.equal(require(), result)
  })
}

test('an identity that was not checked is asked for, and a check of another does not count', async () => {
  const checks = new SignatureChecks([SIGNED], SESSION)
  const verify = { kind: 'verify', identity: IDENTITY, changes: {} }
  assert.deepEqual(checks.require(IDENTITY), verify)
  await checks.check(OTHER)
  assert.deepEqual(checks.require(IDENTITY), verify)
  await checks.check(IDENTITY)
  assert.equal(checks.require(IDENTITY), undefined)
})

test('the error names the first key that is not signed', async () => {
  const checks = new SignatureChecks([SIGNED, key('B', { key: 'b' }), key('C', { key: 'c' })], SESSION)
  await checks.check(IDENTITY)
  assert.throws(() => checks.require(IDENTITY), {
    message: `Key "signed_curve25519:B" is not signed by this device's current ed25519 key.`,
  })
})

test('500 keys are checked in pieces, between which the event loop turns', async () => {
  const keys = Array.from({ length: 500 }, () => SIGNED)
  let turns = 0
  let isChecking = true
  const turn = (): void => {
    turns++
    if (isChecking) setImmediate(turn)
  }
  setImmediate(turn)
  await new SignatureChecks(keys, SESSION).check(IDENTITY)
  isChecking = false
  assert.ok(turns >= 24, `${turns} turns`)
})

test('device keys are signed by the ed25519 key that they carry', () => {
  const json = JSON.stringify(PAIR.sign(userId, { user_id: userId }, deviceId))
  requireSignedDeviceKeys({ json, identity: IDENTITY }, SESSION)
  for (const deviceKeys of [
    { json, identity: OTHER },
    { json, identity: {} },
    { json: '{}', identity: IDENTITY },
  ])
    assert.throws(() => requireSignedDeviceKeys(deviceKeys, SESSION), { errcode: 'M_INVALID_SIGNATURE' })
})
