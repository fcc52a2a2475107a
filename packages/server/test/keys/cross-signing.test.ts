/** Cross-signing: keys, when a password is required, signatures, and who sees them and is notified of changes. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import {
  crossSigningBody,
  crossSigningKey,
  crossSigningPairs,
  type CrossSigningPairs,
  deviceKeysOf,
  type SigningKeyPair,
  signingKeyPair,
} from '@latchkey/testing/signing.ts'
import {
  type AnyJson,
  startTestServer,
  type TestDevice,
  type TestServer,
} from '@latchkey/testing/test-server.ts'

const V3 = '/_matrix/client/v3'
type Reply = { readonly status: number; readonly body: AnyJson }

function uploadKeys(server: TestServer, device: TestDevice, body: unknown): Promise<Reply> {
  return server.call('POST', `${V3}/keys/device_signing/upload`, { token: device.token, body })
}

async function uploadSignatures(server: TestServer, device: TestDevice, body: unknown): Promise<AnyJson> {
  const answer = await server.call('POST', `${V3}/keys/signatures/upload`, { token: device.token, body })
  assert.equal(answer.status, 200, JSON.stringify(answer.body))
  return answer.body.failures
}

async function query(server: TestServer, device: TestDevice, userId: string): Promise<AnyJson> {
  const body = { device_keys: { [userId]: [] } }
  const answer = await server.call('POST', `${V3}/keys/query`, { token: device.token, body })
  return answer.body
}

async function syncToken(server: TestServer, device: TestDevice): Promise<string> {
  const { body } = await server.call('GET', `${V3}/sync?timeout=0`, { token: device.token })
  return body.next_batch
}

async function changed(server: TestServer, device: TestDevice, from: string): Promise<string[]> {
  const { body } = await server.call('GET', `${V3}/keys/changes?from=${from}`, { token: device.token })
  return body.changed
}

function password({ userId }: TestDevice, text = 'password'): AnyJson {
  return { type: 'm.login.password', identifier: { type: 'm.id.user', user: userId }, password: text }
}

type Actor = {
  readonly device: TestDevice
  readonly identity: SigningKeyPair
  readonly deviceKeys: AnyJson
  readonly pairs: CrossSigningPairs
  readonly keys: AnyJson
}

/** A user with one device and all cross-signing keys published. */
async function actor(server: TestServer, localpart: string): Promise<Actor> {
  const device = await server.login(localpart, `${localpart.toUpperCase()}PHONE`)
  const identity = signingKeyPair()
  const deviceKeys = deviceKeysOf(device, identity)
  const { token } = device
  await server.call('POST', `${V3}/keys/upload`, { token, body: { device_keys: deviceKeys } })
  const pairs = crossSigningPairs()
  const keys = crossSigningBody(device.userId, pairs)
  assert.deepEqual(await uploadKeys(server, device, keys), { status: 200, body: {} })
  return { device, identity, deviceKeys, pairs, keys }
}

suite('device_signing/upload', () => {
  test('the first keys, and the same keys again, need no password', async () => {
    await using server = await startTestServer()
    const alice = await server.login('alice')
    const keys = crossSigningBody(alice.userId, crossSigningPairs())
    assert.deepEqual(await uploadKeys(server, alice, keys), { status: 200, body: {} })
    assert.deepEqual(await uploadKeys(server, alice, keys), { status: 200, body: {} })
    const { master_key } = keys
    assert.deepEqual(await uploadKeys(server, alice, { master_key }), { status: 200, body: {} })
    assert.deepEqual(await uploadKeys(server, alice, {}), { status: 200, body: {} })
  })

  test('a new master key is stored only after the password', async () => {
    await using server = await startTestServer()
    const { device, keys } = await actor(server, 'alice')
    const fresh = crossSigningBody(device.userId, crossSigningPairs())
    const challenge = await uploadKeys(server, device, fresh)
    assert.equal(challenge.status, 401)
    assert.deepEqual(challenge.body.flows, [{ stages: ['m.login.password'] }])
    const { session } = challenge.body
    const wrong = await uploadKeys(server, device, {
      ...fresh,
      auth: { ...password(device, 'guess'), session },
    })
    assert.equal(wrong.status, 401)
    assert.deepEqual((await query(server, device, device.userId)).master_keys[device.userId], keys.master_key)
    const right = await uploadKeys(server, device, { ...fresh, auth: { ...password(device), session } })
    assert.deepEqual(right, { status: 200, body: {} })
    const stored = await query(server, device, device.userId)
    assert.deepEqual(stored.master_keys[device.userId], fresh.master_key)
    assert.deepEqual(stored.self_signing_keys[device.userId], fresh.self_signing_key)
    assert.deepEqual(stored.user_signing_keys[device.userId], fresh.user_signing_key)
  })

  test('keys added to a stored master key need the password', async () => {
    await using server = await startTestServer()
    const alice = await server.login('alice')
    const { master_key, self_signing_key } = crossSigningBody(alice.userId, crossSigningPairs())
    assert.equal((await uploadKeys(server, alice, { master_key })).status, 200)
    assert.equal((await uploadKeys(server, alice, { self_signing_key })).status, 401)
    const auth = password(alice)
    assert.equal((await uploadKeys(server, alice, { self_signing_key, auth })).status, 200)
    assert.equal((await uploadKeys(server, alice, { self_signing_key, auth })).status, 200)
  })

  test('an unchanged master key with a new self-signing key is accepted', async () => {
    await using server = await startTestServer()
    const { device, pairs, keys } = await actor(server, 'alice')
    const self_signing_key = crossSigningKey(device.userId, 'self_signing', signingKeyPair(), pairs.master)
    const body = { master_key: keys.master_key, self_signing_key, auth: password(device) }
    assert.deepEqual(await uploadKeys(server, device, body), { status: 200, body: {} })
    const stored = await query(server, device, device.userId)
    assert.deepEqual(stored.self_signing_keys[device.userId], self_signing_key)
  })

  test('a key without the required signature of the master key is refused', async () => {
    await using server = await startTestServer()
    const { userId, ...rest } = await server.login('alice')
    const alice = { userId, ...rest }
    const pairs = crossSigningPairs()
    const keys = crossSigningBody(userId, pairs)
    const unsigned = crossSigningKey(userId, 'self_signing', pairs.selfSigning)
    const foreign = crossSigningKey(userId, 'self_signing', pairs.selfSigning, signingKeyPair())
    const forged = {
      ...unsigned,
      signatures: { [userId]: { [`ed25519:${pairs.master.publicKey}`]: 'A'.repeat(86) } },
    }
    for (const self_signing_key of [unsigned, foreign, forged]) {
      const answer = await uploadKeys(server, alice, { ...keys, self_signing_key })
      assert.equal(answer.status, 400)
      assert.equal(answer.body.errcode, 'M_INVALID_SIGNATURE')
    }
    const { self_signing_key } = keys
    const orphan = await uploadKeys(server, alice, { self_signing_key })
    assert.equal(orphan.status, 400)
    assert.equal(orphan.body.errcode, 'M_MISSING_PARAM')
    assert.deepEqual((await query(server, alice, userId)).master_keys, {})
  })

  test('a malformed key is refused and nothing is stored', async () => {
    await using server = await startTestServer()
    const alice = await server.login('alice')
    const pair = signingKeyPair()
    const good = crossSigningKey(alice.userId, 'master', pair)
    const bad: AnyJson[] = [
      { ...good, user_id: '@bob:test.example' },
      { ...good, user_id: { toString: 1 } },
      { ...good, usage: ['self_signing'] },
      { ...good, usage: 'master' },
      { ...good, keys: {} },
      { ...good, keys: [] },
      { ...good, keys: { ...good.keys, 'ed25519:other': 'other' } },
      { ...good, keys: { [`ed25519:${pair.publicKey}`]: signingKeyPair().publicKey } },
      { ...good, keys: { 'ed25519:short': 'short' } },
      { ...good, keys: { [`ed25519:${pair.publicKey}`]: 7 } },
    ]
    for (const master_key of bad) {
      const { status, body } = await uploadKeys(server, alice, { master_key })
      assert.equal(status, 400, JSON.stringify(master_key))
      assert.equal(body.errcode, 'M_INVALID_PARAM', JSON.stringify(master_key))
    }
    const float = await uploadKeys(server, alice, { master_key: { ...good, extra: 0.5 } })
    assert.equal(float.body.errcode, 'M_BAD_JSON')
    const list = await uploadKeys(server, alice, { master_key: [] })
    assert.equal(list.body.errcode, 'M_BAD_JSON')
    const huge = await uploadKeys(server, alice, { master_key: { ...good, extra: 'x'.repeat(70_000) } })
    assert.equal(huge.status, 413)
    assert.deepEqual((await query(server, alice, alice.userId)).master_keys, {})
  })

  test('a public key that equals a device ID is refused, and nothing of the request is stored', async () => {
    await using server = await startTestServer()
    const pairs = crossSigningPairs()
    const alice = await server.login('alice', pairs.selfSigning.publicKey)
    const { status, body } = await uploadKeys(server, alice, crossSigningBody(alice.userId, pairs))
    assert.equal(status, 403)
    assert.equal(body.errcode, 'M_FORBIDDEN')
    assert.deepEqual((await query(server, alice, alice.userId)).master_keys, {})
  })

  test('a login with a cross-signing public key as device ID is refused unless the key was replaced', async () => {
    await using server = await startTestServer()
    const { device, pairs } = await actor(server, 'alice')
    const login = (device_id: string): Promise<Reply> =>
      server.call('POST', `${V3}/login`, { body: { ...password(device), device_id } })
    for (const pair of [pairs.master, pairs.selfSigning, pairs.userSigning]) {
      const { status, body } = await login(pair.publicKey)
      assert.deepEqual([status, body.errcode], [400, 'M_INVALID_PARAM'])
    }
    const fresh = crossSigningBody(device.userId, crossSigningPairs())
    const replaced = await uploadKeys(server, device, { ...fresh, auth: password(device) })
    assert.equal(replaced.status, 200)
    assert.equal((await login(pairs.master.publicKey)).status, 200)
  })

  test('a new master key is reported to observers, a new user-signing key to its user only', async () => {
    await using server = await startTestServer()
    const { device: alice, pairs } = await actor(server, 'alice')
    const bob = await server.login('bob')
    await query(server, bob, alice.userId)
    const forAlice = await syncToken(server, alice)
    const forBob = await syncToken(server, bob)
    const user_signing_key = crossSigningKey(alice.userId, 'user_signing', signingKeyPair(), pairs.master)
    await uploadKeys(server, alice, { user_signing_key, auth: password(alice) })
    assert.deepEqual(await changed(server, alice, forAlice), [alice.userId])
    assert.deepEqual(await changed(server, bob, forBob), [])
    await uploadKeys(server, alice, {
      ...crossSigningBody(alice.userId, crossSigningPairs()),
      auth: password(alice),
    })
    assert.deepEqual(await changed(server, bob, forBob), [alice.userId])
  })
})

suite('signatures/upload', () => {
  test('everyone sees a self-signed device and a master key signed by it', async () => {
    await using server = await startTestServer()
    const { device, identity, deviceKeys, pairs, keys } = await actor(server, 'alice')
    const bob = await server.login('bob')
    await query(server, bob, device.userId)
    const token = await syncToken(server, bob)
    const { userId, deviceId } = device
    const master = pairs.master.publicKey
    const signedDevice = pairs.selfSigning.sign(userId, { ...deviceKeys, signatures: {} })
    const signedMaster = identity.sign(userId, keys.master_key, deviceId)
    const failures = await uploadSignatures(server, device, {
      [userId]: { [deviceId]: signedDevice, [master]: signedMaster },
    })
    assert.deepEqual(failures, {})
    const seen = await query(server, bob, userId)
    assert.deepEqual(seen.device_keys[userId][deviceId], {
      ...pairs.selfSigning.sign(userId, deviceKeys),
      unsigned: {},
    })
    assert.deepEqual(seen.master_keys[userId], signedMaster)
    assert.deepEqual(await changed(server, bob, token), [userId])
  })

  test("only the signer sees, and is notified of, a signature on another user's master key", async () => {
    await using server = await startTestServer()
    const alice = await actor(server, 'alice')
    const bob = await actor(server, 'bob')
    const carol = await server.login('carol')
    for (const viewer of [alice.device, carol]) await query(server, viewer, bob.device.userId)
    const devices = [alice.device, bob.device, carol]
    const tokens = await Promise.all(devices.map((device) => syncToken(server, device)))
    const bobId = bob.device.userId
    const signed = alice.pairs.userSigning.sign(alice.device.userId, bob.keys.master_key)
    const body = { [bobId]: { [bob.pairs.master.publicKey]: signed } }
    assert.deepEqual(await uploadSignatures(server, alice.device, body), {})
    assert.deepEqual((await query(server, alice.device, bobId)).master_keys[bobId], signed)
    for (const other of [bob.device, carol]) {
      assert.deepEqual((await query(server, other, bobId)).master_keys[bobId], bob.keys.master_key)
    }
    const told = await Promise.all(devices.map((device, i) => changed(server, device, tokens[i] ?? '')))
    assert.deepEqual(told, [[bobId], [], []])
  })

  test('a repeated signature is accepted and changes nothing', async () => {
    await using server = await startTestServer()
    const { device, deviceKeys, pairs } = await actor(server, 'alice')
    const body = {
      [device.userId]: { [device.deviceId]: pairs.selfSigning.sign(device.userId, deviceKeys) },
    }
    assert.deepEqual(await uploadSignatures(server, device, body), {})
    const token = await syncToken(server, device)
    assert.deepEqual(await uploadSignatures(server, device, body), {})
    assert.deepEqual(await changed(server, device, token), [])
  })

  test('invalid signatures are named in failures, and the others are stored', async () => {
    await using server = await startTestServer()
    const alice = await actor(server, 'alice')
    const bob = await actor(server, 'bob')
    const { userId, deviceId } = alice.device
    const master = alice.pairs.master.publicKey
    const bobId = bob.device.userId
    const bobMaster = bob.pairs.master.publicKey
    const stranger = signingKeyPair()
    const wrongMaster = {
      ...alice.keys.master_key,
      signatures: { [userId]: { [`ed25519:${deviceId}`]: 'A'.repeat(86) } },
    }
    const failures = await uploadSignatures(server, alice.device, {
      [userId]: {
        [deviceId]: alice.pairs.selfSigning.sign(userId, alice.deviceKeys),
        [master]: wrongMaster,
        GONE: alice.pairs.selfSigning.sign(userId, alice.deviceKeys),
        [alice.pairs.selfSigning.publicKey]: alice.keys.self_signing_key,
      },
      [bobId]: {
        [bobMaster]: stranger.sign(userId, bob.keys.master_key),
        [bob.device.deviceId]: alice.pairs.userSigning.sign(userId, bob.deviceKeys),
      },
      '@carol:far.example': { KEY: {} },
    })
    const codes = Object.fromEntries(
      Object.entries(failures as Record<string, AnyJson>).map(([user, keys]) => [
        user,
        Object.fromEntries(Object.entries(keys as AnyJson).map(([key, f]) => [key, (f as AnyJson).errcode])),
      ]),
    )
    assert.deepEqual(codes, {
      [userId]: {
        [master]: 'M_INVALID_SIGNATURE',
        GONE: 'M_NOT_FOUND',
        [alice.pairs.selfSigning.publicKey]: 'M_NOT_FOUND',
      },
      [bobId]: { [bobMaster]: 'M_INVALID_SIGNATURE', [bob.device.deviceId]: 'M_NOT_FOUND' },
      '@carol:far.example': { KEY: 'M_NOT_FOUND' },
    })
    const failure = failures[userId].GONE
    assert.equal(failure.status, 404)
    assert.equal(failure.message, failure.error)
    const stored = await query(server, alice.device, userId)
    const { signatures } = stored.device_keys[userId][deviceId]
    assert.ok(signatures[userId][`ed25519:${alice.pairs.selfSigning.publicKey}`])
    assert.deepEqual(stored.master_keys[userId], alice.keys.master_key)
  })

  test('a signature on an object other than the published one is refused', async () => {
    await using server = await startTestServer()
    const { device, deviceKeys, pairs } = await actor(server, 'alice')
    const other = { ...deviceKeys, algorithms: [] }
    const failures = await uploadSignatures(server, device, {
      [device.userId]: { [device.deviceId]: pairs.selfSigning.sign(device.userId, other) },
    })
    const failure = failures[device.userId][device.deviceId]
    assert.equal(failure.errcode, 'M_UNKNOWN')
    assert.match(failure.error, /does not match/)
  })

  test('signatures on and by a replaced key are removed', async () => {
    await using server = await startTestServer()
    const { device, identity, deviceKeys, pairs, keys } = await actor(server, 'alice')
    const { userId, deviceId } = device
    await uploadSignatures(server, device, {
      [userId]: {
        [deviceId]: pairs.selfSigning.sign(userId, deviceKeys),
        [pairs.master.publicKey]: identity.sign(userId, keys.master_key, deviceId),
      },
    })
    const fresh = crossSigningBody(userId, crossSigningPairs())
    await uploadKeys(server, device, { ...fresh, auth: password(device) })
    await uploadKeys(server, device, { ...keys, auth: password(device) })
    const seen = await query(server, device, userId)
    assert.deepEqual(seen.master_keys[userId], keys.master_key)
    assert.deepEqual(seen.device_keys[userId][deviceId], { ...deviceKeys, unsigned: {} })
  })

  test('signatures by a removed device are removed with it, however they were uploaded', async () => {
    await using server = await startTestServer()
    const first = await actor(server, 'alice')
    const { userId } = first.device
    const master = first.keys.master_key
    const signersOfMaster = async (): Promise<string[]> => {
      const seen = (await query(server, first.device, userId)).master_keys[userId]
      return Object.keys(seen.signatures?.[userId] ?? {})
    }
    for (let n = 0; n < 3; n++) {
      const other = await server.login('alice', `OTHER${n}`)
      const identity = signingKeyPair()
      const device_keys = deviceKeysOf(other, identity)
      await server.call('POST', `${V3}/keys/upload`, { token: other.token, body: { device_keys } })
      const signed = identity.sign(userId, master, other.deviceId)
      await uploadSignatures(server, other, { [userId]: { [first.pairs.master.publicKey]: signed } })
      assert.deepEqual(await signersOfMaster(), [`ed25519:OTHER${n}`])
      await server.call('POST', `${V3}/logout`, { token: other.token })
      assert.deepEqual(await signersOfMaster(), [])
    }
    const other = await server.login('alice', 'LAST')
    const identity = signingKeyPair()
    const body = { device_keys: deviceKeysOf(other, identity) }
    await server.call('POST', `${V3}/keys/upload`, { token: other.token, body })
    const pairs = crossSigningPairs()
    const fresh = crossSigningBody(userId, pairs)
    const answer = await uploadKeys(server, first.device, {
      ...fresh,
      master_key: identity.sign(userId, fresh.master_key, 'LAST'),
      auth: password(first.device),
    })
    assert.equal(answer.status, 200)
    assert.deepEqual(await signersOfMaster(), ['ed25519:LAST'])
    await server.call('POST', `${V3}/logout`, { token: other.token })
    assert.deepEqual(await signersOfMaster(), [])
  })

  test('a malformed request is refused with M_INVALID_PARAM', async () => {
    await using server = await startTestServer()
    const { token, userId } = await server.login('alice')
    const tooMany = Object.fromEntries(Array.from({ length: 1001 }, (_, i) => [`K${i}`, {}]))
    for (const body of [{ [userId]: [] }, { [userId]: { KEY: 'text' } }, { [userId]: tooMany }]) {
      const answer = await server.call('POST', `${V3}/keys/signatures/upload`, { token, body })
      assert.equal(answer.status, 400)
      assert.equal(answer.body.errcode, 'M_INVALID_PARAM')
    }
  })
})
