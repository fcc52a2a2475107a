/** Rules of uploaded signatures: which keys may sign what, and which signatures are new. */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import { canonicalJson, type DeviceId, type JsonObject, type UserId } from '@latchkey/protocol'
import { crossSigningKey, crossSigningPairs, signingKeyPair } from '@latchkey/testing/signing.ts'
import { MatrixError } from '../matrix-error.ts'
import type { UserRef } from '../session.ts'
import type { CrossSigningUsage, PublishedKeys } from './port.ts'
import { type KeyOwner, newSignatures } from './signatures.ts'

const [ALICE, BOB] = ['@alice:test.example', '@bob:test.example'] as [UserId, UserId]
const DEVICE = 'DEV' as DeviceId
const identity = signingKeyPair()
const [alicePairs, bobPairs] = [crossSigningPairs(), crossSigningPairs()]
const deviceObject = {
  user_id: ALICE,
  device_id: DEVICE,
  keys: { [`ed25519:${DEVICE}`]: identity.publicKey },
  signatures: {},
}

function ownerOf(userId: UserId, pairs: typeof alicePairs, objects: readonly JsonObject[] = []): KeyOwner {
  const key = (usage: CrossSigningUsage, pair: typeof identity): PublishedKeys['crossSigning'][number] => ({
    usage,
    publicKey: pair.publicKey,
    json: canonicalJson(crossSigningKey(userId, usage, pair)),
  })
  return {
    userId,
    published: {
      userRef: 1 as UserRef,
      devices: objects.map((object) => ({ deviceId: DEVICE, json: canonicalJson(object) })),
      crossSigning: [
        key('master', pairs.master),
        key('self_signing', pairs.selfSigning),
        key('user_signing', pairs.userSigning),
      ],
      signatures: [],
    },
  }
}

const alice = ownerOf(ALICE, alicePairs, [deviceObject])
const bob = ownerOf(BOB, bobPairs)
const masterOf = (owner: KeyOwner): JsonObject =>
  JSON.parse(owner.published.crossSigning[0]?.json ?? '') as JsonObject

/** The names of the new signatures' keys, or the errcode. */
function outcome(owner: KeyOwner, keyId: string, uploaded: JsonObject): readonly string[] | string {
  try {
    return newSignatures(alice, owner, keyId, uploaded).map(({ signerKeyId }) => signerKeyId)
  } catch (error) {
    if (error instanceof MatrixError) return error.errcode
    throw error
  }
}

describe('a signature is accepted', () => {
  const { master, selfSigning, userSigning } = alicePairs
  const rows: readonly (readonly [string, KeyOwner, string, JsonObject, string])[] = [
    [
      'on an own device by the self-signing key',
      alice,
      DEVICE,
      selfSigning.sign(ALICE, deviceObject),
      selfSigning.publicKey,
    ],
    [
      'on the own master key by an own device',
      alice,
      master.publicKey,
      identity.sign(ALICE, masterOf(alice), DEVICE),
      DEVICE,
    ],
    [
      'on another user’s master key by the user-signing key',
      bob,
      bobPairs.master.publicKey,
      userSigning.sign(ALICE, masterOf(bob)),
      userSigning.publicKey,
    ],
  ]
  for (const [name, owner, keyId, uploaded, by] of rows)
    test(name, () => assert.deepEqual(outcome(owner, keyId, uploaded), [`ed25519:${by}`]))
})

describe('a signature is refused', () => {
  const { master, selfSigning, userSigning } = alicePairs
  const onDevice = selfSigning.sign(ALICE, deviceObject)
  const forged = { ...deviceObject, signatures: signatureOf(signingKeyPair(), selfSigning.publicKey) }
  const rows: readonly (readonly [string, KeyOwner, string, JsonObject, string])[] = [
    ['on an unknown key', alice, 'UNKNOWN', deviceObject, 'M_NOT_FOUND'],
    ['on another user’s device', ownerOf(BOB, bobPairs, [deviceObject]), DEVICE, onDevice, 'M_NOT_FOUND'],
    ['on the own self-signing key', alice, selfSigning.publicKey, deviceObject, 'M_NOT_FOUND'],
    ['on another object than the published one', alice, DEVICE, { ...onDevice, extra: 1 }, 'M_UNKNOWN'],
    ['when there is none', alice, DEVICE, deviceObject, 'M_INVALID_SIGNATURE'],
    [
      'on an own device by the master key',
      alice,
      DEVICE,
      master.sign(ALICE, deviceObject),
      'M_INVALID_SIGNATURE',
    ],
    [
      'on an own device by the user-signing key',
      alice,
      DEVICE,
      userSigning.sign(ALICE, deviceObject),
      'M_INVALID_SIGNATURE',
    ],
    [
      'on the own master key by the self-signing key',
      alice,
      master.publicKey,
      selfSigning.sign(ALICE, masterOf(alice)),
      'M_INVALID_SIGNATURE',
    ],
    [
      'on another user’s master key by the own master key',
      bob,
      bobPairs.master.publicKey,
      master.sign(ALICE, masterOf(bob)),
      'M_INVALID_SIGNATURE',
    ],
    ['when it does not verify', alice, DEVICE, forged, 'M_INVALID_SIGNATURE'],
    [
      'in the name of another user',
      alice,
      DEVICE,
      selfSigning.sign(BOB, deviceObject),
      'M_INVALID_SIGNATURE',
    ],
  ]
  for (const [name, owner, keyId, uploaded, errcode] of rows)
    test(name, () => assert.equal(outcome(owner, keyId, uploaded), errcode))

  function signatureOf(pair: typeof identity, name: string): JsonObject {
    return pair.sign(ALICE, deviceObject, name).signatures as JsonObject
  }
})

describe('a signature that is published already', () => {
  const uploaded = alicePairs.selfSigning.sign(ALICE, deviceObject)
  const [added] = newSignatures(alice, alice, DEVICE, uploaded)
  assert.ok(added)

  test('among the added ones is not new', () => {
    const owner = { ...alice, published: { ...alice.published, signatures: [added] } }
    assert.deepEqual(outcome(owner, DEVICE, uploaded), [])
  })

  test('in the object itself is not new', () => {
    const owner = ownerOf(ALICE, alicePairs, [uploaded])
    assert.deepEqual(outcome(owner, DEVICE, uploaded), [])
  })

  test('on another key is new on this one', () => {
    const elsewhere = { ...added, keyId: 'ELSEWHERE' }
    const owner = { ...alice, published: { ...alice.published, signatures: [elsewhere] } }
    assert.equal(outcome(owner, DEVICE, uploaded).length, 1)
  })
})

test('more than 20 signatures by own devices on one object are refused', () => {
  const deviceIds = Array.from({ length: 21 }, (_, n) => `DEV${n}` as DeviceId)
  const devices = deviceIds.map((deviceId) => ({
    deviceId,
    json: canonicalJson({
      ...deviceObject,
      device_id: deviceId,
      keys: { [`ed25519:${deviceId}`]: identity.publicKey },
    }),
  }))
  const owner: KeyOwner = { ...alice, published: { ...alice.published, devices } }
  const { signatures: _, ...master } = masterOf(alice)
  const signedBy = (count: number): JsonObject =>
    deviceIds
      .slice(0, count)
      .reduce<JsonObject>((object, deviceId) => identity.sign(ALICE, object, deviceId) as JsonObject, master)
  const { publicKey } = alicePairs.master
  assert.equal(newSignatures(owner, owner, publicKey, signedBy(20)).length, 20)
  assert.throws(() => newSignatures(owner, owner, publicKey, signedBy(21)), { errcode: 'M_INVALID_PARAM' })
})
