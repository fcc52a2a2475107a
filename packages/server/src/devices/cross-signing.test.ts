/** Checks of uploaded cross-signing keys. */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import { canonicalJson, type DeviceId, type JsonObject, type UserId } from '@latchkey/protocol'
import { crossSigningKey, crossSigningPairs, signingKeyPair } from '@latchkey/testing/signing.ts'
import { MatrixError } from '../matrix-error.ts'
import { changedCrossSigning, type UploadedCrossSigning } from './cross-signing.ts'
import type { CrossSigningKey, CrossSigningUsage } from './port.ts'

const ALICE = '@alice:test.example' as UserId
const pairs = crossSigningPairs()
const objects = {
  master: crossSigningKey(ALICE, 'master', pairs.master) as JsonObject,
  self_signing: crossSigningKey(ALICE, 'self_signing', pairs.selfSigning, pairs.master) as JsonObject,
  user_signing: crossSigningKey(ALICE, 'user_signing', pairs.userSigning, pairs.master) as JsonObject,
}

const NOTHING = { crossSigning: [], devices: [] }

function stored(usages: readonly CrossSigningUsage[]): CrossSigningKey[] {
  return changedCrossSigning(ALICE, objects, NOTHING).keys.filter(({ usage }) => usages.includes(usage))
}

/** The usages of the changed keys, or the errcode. */
function outcome(
  uploaded: UploadedCrossSigning,
  before: readonly CrossSigningKey[] = [],
): readonly string[] | string {
  try {
    return changedCrossSigning(ALICE, uploaded, { crossSigning: before, devices: [] }).keys.map(
      ({ usage }) => usage,
    )
  } catch (error) {
    if (error instanceof MatrixError) return error.errcode
    throw error
  }
}

describe('an upload of cross-signing keys', () => {
  const { master, self_signing, user_signing } = objects
  const all: readonly CrossSigningUsage[] = ['master', 'self_signing', 'user_signing']
  const other = signingKeyPair()
  const newMaster = crossSigningKey(ALICE, 'master', other) as JsonObject
  const countersigned = signingKeyPair().sign(ALICE, master, 'DEV') as JsonObject
  const rows: readonly (readonly [string, readonly string[] | string, readonly string[] | string])[] = [
    ['changes all of them the first time', outcome(objects), all],
    ['changes nothing the second time (MSC3967)', outcome(objects, stored(all)), []],
    [
      'of a self-signing key is checked against the stored master key',
      outcome({ self_signing }, stored(['master'])),
      ['self_signing'],
    ],
    ['of a self-signing key without any master key is refused', outcome({ self_signing }), 'M_MISSING_PARAM'],
    ['of a user-signing key without any master key is refused', outcome({ user_signing }), 'M_MISSING_PARAM'],
    ['of a master key alone is accepted', outcome({ master }), ['master']],
    [
      'of a self-signing key that another master key signed is refused',
      outcome({ master: newMaster, self_signing }),
      'M_INVALID_SIGNATURE',
    ],
    [
      'is checked against the uploaded master key before the stored one',
      outcome({ master: newMaster, self_signing }, stored(all)),
      'M_INVALID_SIGNATURE',
    ],
    [
      'of the stored master key with another signature changes nothing',
      outcome({ master: countersigned }, stored(all)),
      [],
    ],
    [
      'of the stored self-signing key under a new master key changes both',
      outcome(
        {
          master: newMaster,
          self_signing: crossSigningKey(ALICE, 'self_signing', pairs.selfSigning, other) as JsonObject,
        },
        stored(all),
      ),
      ['master', 'self_signing'],
    ],
    ['of no keys changes nothing', outcome({}), []],
  ]
  for (const [name, found, expected] of rows) test(name, () => assert.deepEqual(found, expected))
})

describe('the form of a cross-signing key', () => {
  const { master } = objects
  const key = (name: string, value = name.replace('ed25519:', '')): JsonObject => ({
    ...master,
    keys: { [name]: value },
  })
  const own = pairs.master.publicKey
  const rows: readonly (readonly [string, JsonObject, string])[] = [
    ['has the user as `user_id`', { ...master, user_id: '@bob:test.example' }, 'M_INVALID_PARAM'],
    ['has a `user_id`', { ...master, user_id: 1 }, 'M_INVALID_PARAM'],
    ['has its usage', { ...master, usage: ['self_signing'] }, 'M_INVALID_PARAM'],
    ['has a list of usages', { ...master, usage: 'master' }, 'M_INVALID_PARAM'],
    ['has a key', { ...master, keys: {} }, 'M_INVALID_PARAM'],
    ['has one key', { ...master, keys: { [`ed25519:${own}`]: own, 'ed25519:x': 'x' } }, 'M_INVALID_PARAM'],
    ['names the key by its public key', key(`ed25519:${own}`, signingKeyPair().publicKey), 'M_INVALID_PARAM'],
    ['has an ed25519 key', { ...master, keys: { [`curve25519:${own}`]: own } }, 'M_INVALID_PARAM'],
    ['has unpadded base64', key(`ed25519:${own}=`), 'M_INVALID_PARAM'],
    ['has 32 bytes of base64', key(`ed25519:${own.slice(1)}`), 'M_INVALID_PARAM'],
    ['can be signed', { ...master, half: 0.5 }, 'M_BAD_JSON'],
    [
      'has at most 4 KiB',
      { ...master, text: 'x'.repeat(4_096 - canonicalJson({ ...master, text: '' }).length + 1) },
      'M_TOO_LARGE',
    ],
  ]
  for (const [name, object, errcode] of rows)
    test(name, () => assert.equal(outcome({ master: object }), errcode))

  test('of exactly 4 KiB is accepted', () => {
    const text = 'x'.repeat(4_096 - canonicalJson({ ...master, text: '' }).length)
    assert.deepEqual(outcome({ master: { ...master, text } }), ['master'])
  })
})

describe('signatures that come with a cross-signing key', () => {
  const device = signingKeyPair()
  const devices = [
    {
      deviceId: 'DEV' as DeviceId,
      json: canonicalJson({ user_id: ALICE, device_id: 'DEV', keys: { 'ed25519:DEV': device.publicKey } }),
    },
  ]
  const upload = (uploaded: UploadedCrossSigning): ReturnType<typeof changedCrossSigning> =>
    changedCrossSigning(ALICE, uploaded, { crossSigning: [], devices })
  const signaturesIn = (json: string | undefined): unknown => JSON.parse(json ?? '').signatures
  const invented = (object: JsonObject): JsonObject => ({
    ...object,
    signatures: {
      ...(object['signatures'] as JsonObject | undefined),
      '@bob:test.example': { 'ed25519:B': 'x'.repeat(60_000) },
    },
  })

  test('are kept on the master key if a known device of its owner made them', () => {
    const { keys, signatures } = upload({ master: device.sign(ALICE, objects.master, 'DEV') as JsonObject })
    assert.deepEqual(
      signatures.map(({ keyId, signer, signerKeyId }) => [keyId, signer, signerKeyId]),
      [[pairs.master.publicKey, ALICE, 'ed25519:DEV']],
    )
    assert.deepEqual(signaturesIn(keys[0]?.json), {})
  })

  const dropped = [
    ['of an unknown device', device.sign(ALICE, objects.master, 'OTHER')],
    ['of another key than the device has', signingKeyPair().sign(ALICE, objects.master, 'DEV')],
    ['of another user', device.sign('@bob:test.example', objects.master, 'DEV')],
    ['of the master key itself', pairs.master.sign(ALICE, objects.master)],
    ['that are invented', invented(objects.master)],
  ] as const
  for (const [name, master] of dropped) {
    test(`are dropped from the master key if they are ${name}`, () => {
      const { keys, signatures } = upload({ master: master as JsonObject })
      assert.deepEqual(signatures, [])
      assert.deepEqual(signaturesIn(keys[0]?.json), {})
    })
  }

  test('are dropped from the other keys, except that of the master key', () => {
    const { keys } = upload({ ...objects, self_signing: invented(objects.self_signing) })
    const text = keys.find(({ usage }) => usage === 'self_signing')?.json
    assert.deepEqual(signaturesIn(text), objects.self_signing['signatures'])
  })

  test('are refused if more than 20 devices seem to have made them', () => {
    const many = Array.from({ length: 21 }, (_, n) => ({ deviceId: `DEV${n}` as DeviceId }))
    const known = many.map(({ deviceId }) => ({
      deviceId,
      json: canonicalJson({ user_id: ALICE, keys: { [`ed25519:${deviceId}`]: device.publicKey } }),
    }))
    const signatures = {
      [ALICE]: Object.fromEntries(many.map(({ deviceId }) => [`ed25519:${deviceId}`, 'A'])),
    }
    const uploaded = { master: { ...objects.master, signatures } as JsonObject }
    assert.throws(() => changedCrossSigning(ALICE, uploaded, { crossSigning: [], devices: known }), {
      errcode: 'M_INVALID_PARAM',
    })
  })
})
