/** Device management over HTTP, and what the removal of a device removes: tokens, keys, messages, signatures. */
import assert from 'node:assert/strict'
import test from 'node:test'
import {
  crossSigningBody,
  crossSigningPairs,
  deviceKeysOf,
  signingKeyPair,
} from '@latchkey/testing/signing.ts'
import { longPoll } from '@latchkey/testing/test-client.ts'
import {
  startTestServer,
  type AnyJson,
  type TestDevice,
  type TestServer,
} from '@latchkey/testing/test-server.ts'

const V3 = '/_matrix/client/v3'

function passwordAuth(user: string): object {
  return { type: 'm.login.password', identifier: { type: 'm.id.user', user }, password: 'password' }
}

async function idsOf(server: TestServer, token: string): Promise<string[]> {
  const { body } = await server.call('GET', `${V3}/devices`, { token })
  return body.devices.map((device: { device_id: string }) => device.device_id)
}

function deviceKeys({ userId, deviceId }: TestDevice, identity: string): object {
  return {
    user_id: userId,
    device_id: deviceId,
    algorithms: ['m.olm.v1.curve25519-aes-sha2'],
    keys: { [`ed25519:${deviceId}`]: `ed ${identity}`, [`curve25519:${deviceId}`]: `curve ${identity}` },
    signatures: {},
  }
}

async function publish(server: TestServer, device: TestDevice, identity: string): Promise<void> {
  const { token } = device
  const body = { device_keys: deviceKeys(device, identity) }
  assert.equal((await server.call('POST', `${V3}/keys/upload`, { token, body })).status, 200)
}

/** Uploads an identity, one-time keys, and a fallback key. */
async function uploadKeys(server: TestServer, device: TestDevice, keys: readonly string[]): Promise<AnyJson> {
  const { status, body } = await server.call('POST', `${V3}/keys/upload`, {
    token: device.token,
    body: {
      device_keys: deviceKeys(device, 'first'),
      one_time_keys: Object.fromEntries(keys.map((key) => [`signed_curve25519:${key}`, `key ${key}`])),
      fallback_keys: { 'signed_curve25519:F': { key: `fallback ${keys.join()}`, fallback: true } },
    },
  })
  assert.equal(status, 200, JSON.stringify(body))
  return body
}

function uploadOneTimeKeys(
  server: TestServer,
  { token }: TestDevice,
  keys: readonly string[],
): ReturnType<TestServer['call']> {
  const one_time_keys = Object.fromEntries(keys.map((key) => [`signed_curve25519:${key}`, `key ${key}`]))
  return server.call('POST', `${V3}/keys/upload`, { token, body: { one_time_keys } })
}

async function claim(server: TestServer, token: string, device: TestDevice): Promise<AnyJson> {
  const one_time_keys = { [device.userId]: { [device.deviceId]: 'signed_curve25519' } }
  const { body } = await server.call('POST', `${V3}/keys/claim`, { token, body: { one_time_keys } })
  return body.one_time_keys
}

async function syncToken(server: TestServer, token: string): Promise<string> {
  return (await server.call('GET', `${V3}/sync`, { token })).body.next_batch
}

async function changedSince(server: TestServer, token: string, since: string): Promise<string[]> {
  const { body } = await server.call('GET', `${V3}/sync?since=${since}`, { token })
  return body.device_lists?.changed ?? []
}

test('devices are listed with their names and when they were last seen', async () => {
  const nowMs = 1_700_000_000_000
  await using server = await startTestServer({}, { now: () => nowMs })
  await server.login('alice', 'TABLET')
  const { body: phone } = await server.call('POST', `${V3}/login`, {
    body: { ...passwordAuth('alice'), device_id: 'PHONE', initial_device_display_name: 'My phone' },
  })
  const token = phone.access_token
  await server.call('GET', `${V3}/account/whoami`, { token })
  // The queue writes the new name after the last use.
  await server.call('PUT', `${V3}/devices/PHONE`, { token, body: { display_name: 'My phone' } })
  const { body } = await server.call('GET', `${V3}/devices`, { token })
  const listed = {
    device_id: 'PHONE',
    user_id: '@alice:test.example',
    display_name: 'My phone',
    last_seen_ts: nowMs,
    last_seen_ip: '127.0.0.1',
  }
  // Every member is present, because matrix-nio requires it: a name that was never set is empty.
  const tablet = { ...listed, device_id: 'TABLET', display_name: '' }
  assert.deepEqual(body, { devices: [listed, tablet] })
  const one = await server.call('GET', `${V3}/devices/PHONE`, { token })
  assert.deepEqual(one, { status: 200, body: listed })
})

test('the last use of a device is written again after ten minutes, not before', async () => {
  let nowMs = 1_700_000_000_000
  await using server = await startTestServer({}, { now: () => nowMs })
  const { token } = await server.login('alice', 'PHONE')
  const lastSeen = async (): Promise<number> => {
    await server.call('PUT', `${V3}/devices/PHONE`, { token, body: { display_name: String(nowMs) } })
    return (await server.call('GET', `${V3}/devices/PHONE`, { token })).body.last_seen_ts
  }
  assert.equal(await lastSeen(), 1_700_000_000_000)
  nowMs += 9 * 60_000
  assert.equal(await lastSeen(), 1_700_000_000_000)
  nowMs += 60_000
  assert.equal(await lastSeen(), nowMs)
})

test('a new name is stored, and an unknown device or an overlong name is refused', async () => {
  await using server = await startTestServer()
  const { token } = await server.login('alice', 'PHONE')
  const { token: bob } = await server.login('bob', 'LAPTOP')
  const put = (device: string, body: object): ReturnType<typeof server.call> =>
    server.call('PUT', `${V3}/devices/${device}`, { token, body })

  assert.deepEqual(await put('PHONE', { display_name: 'n'.repeat(100) }), { status: 200, body: {} })
  assert.deepEqual(await put('PHONE', {}), { status: 200, body: {} })
  const kept = await server.call('GET', `${V3}/devices/PHONE`, { token })
  assert.equal(kept.body.display_name, 'n'.repeat(100))
  const long = await put('PHONE', { display_name: 'n'.repeat(101) })
  assert.deepEqual([long.status, long.body.errcode], [400, 'M_TOO_LARGE'])
  const wrong = await put('PHONE', { display_name: 7 })
  assert.deepEqual([wrong.status, wrong.body.errcode], [400, 'M_BAD_JSON'])
  for (const answer of [
    await put('LAPTOP', { display_name: 'mine' }),
    await put('LAPTOP', {}),
    await server.call('GET', `${V3}/devices/LAPTOP`, { token }),
    await server.call('GET', `${V3}/devices/PHONE`, { token: bob }),
    await server.call('GET', `${V3}/devices/%00`, { token }),
  ]) {
    assert.deepEqual([answer.status, answer.body.errcode], [404, 'M_NOT_FOUND'])
  }
})

test('a renamed device is a device list change', async () => {
  await using server = await startTestServer()
  const { token, userId } = await server.login('alice', 'PHONE')
  const since = await syncToken(server, token)
  await server.call('PUT', `${V3}/devices/PHONE`, { token, body: { display_name: 'new' } })
  assert.deepEqual(await changedSince(server, token, since), [userId])
})

test('deleting a device is challenged, even without a body, and then ends its session', async () => {
  await using server = await startTestServer()
  const phone = await server.login('alice', 'PHONE')
  const tablet = await server.login('alice', 'TABLET')
  const challenge = await server.call('DELETE', `${V3}/devices/TABLET`, { token: phone.token })
  assert.equal(challenge.status, 401)
  assert.deepEqual(challenge.body.flows, [{ stages: ['m.login.password'] }])
  assert.deepEqual(await idsOf(server, tablet.token), ['PHONE', 'TABLET'])

  const auth = { ...passwordAuth('alice'), session: challenge.body.session }
  const deleted = await server.call('DELETE', `${V3}/devices/TABLET`, { token: phone.token, body: { auth } })
  assert.deepEqual(deleted, { status: 200, body: {} })
  assert.deepEqual(await idsOf(server, phone.token), ['PHONE'])
  const gone = await server.call('GET', `${V3}/devices`, { token: tablet.token })
  assert.deepEqual([gone.status, gone.body.errcode], [401, 'M_UNKNOWN_TOKEN'])
  const again = await server.call('DELETE', `${V3}/devices/TABLET`, {
    token: phone.token,
    body: { auth: passwordAuth('alice') },
  })
  assert.equal(again.status, 200)
})

test('delete_devices deletes the named devices, and none of another user', async () => {
  await using server = await startTestServer()
  const phone = await server.login('alice', 'PHONE')
  for (const deviceId of ['A', 'B', 'C']) await server.login('alice', deviceId)
  const bob = await server.login('bob', 'LAPTOP')
  const body = { devices: ['A', 'A', 'C', 'LAPTOP', '__proto__', 'NONE'], auth: passwordAuth('alice') }
  const deleted = await server.call('POST', `${V3}/delete_devices`, { token: phone.token, body })
  assert.deepEqual(deleted, { status: 200, body: {} })
  assert.deepEqual(await idsOf(server, phone.token), ['B', 'PHONE'])
  assert.deepEqual(await idsOf(server, bob.token), ['LAPTOP'])
  for (const bad of [{}, { devices: 'A' }, { devices: [1] }]) {
    const answer = await server.call('POST', `${V3}/delete_devices`, { token: phone.token, body: bad })
    assert.equal(answer.status, 400)
  }
})

test('device IDs with unusual characters can be managed by path', async () => {
  await using server = await startTestServer()
  const { token } = await server.login('alice', 'a/b%2F ?é😀')
  const path = `${V3}/devices/${encodeURIComponent('a/b%2F ?é😀')}`
  assert.equal((await server.call('GET', path, { token })).body.device_id, 'a/b%2F ?é😀')
})

test('a logged-out device has no keys to query or claim', async () => {
  await using server = await startTestServer()
  const phone = await server.login('alice', 'PHONE')
  const bob = await server.login('bob', 'LAPTOP')
  await uploadKeys(server, phone, ['AAAA', 'AAAB'])
  const query = { token: bob.token, body: { device_keys: { [phone.userId]: [] } } }
  const before = await server.call('POST', `${V3}/keys/query`, query)
  assert.deepEqual(Object.keys(before.body.device_keys[phone.userId]), ['PHONE'])
  const since = await syncToken(server, bob.token)
  await server.call('POST', `${V3}/logout`, { token: phone.token })

  assert.deepEqual(await changedSince(server, bob.token, since), [phone.userId])
  const after = await server.call('POST', `${V3}/keys/query`, query)
  assert.deepEqual(after.body.device_keys, { [phone.userId]: {} })
  assert.deepEqual(await claim(server, bob.token, phone), {})
})

test('a reused device ID starts without keys, and never gets an issued or purged key back', async () => {
  await using server = await startTestServer()
  const phone = await server.login('alice', 'PHONE')
  const bob = await server.login('bob', 'LAPTOP')
  const before = await uploadKeys(server, phone, ['AAAA', 'AAAB'])
  // The issue is still only in the issue log when the device is removed.
  assert.deepEqual(await claim(server, bob.token, phone), {
    [phone.userId]: { PHONE: { 'signed_curve25519:AAAA': 'key AAAA' } },
  })
  await server.call('POST', `${V3}/logout`, { token: phone.token })
  const { body: login } = await server.call('POST', `${V3}/login`, {
    body: { ...passwordAuth('alice'), device_id: 'PHONE', initial_device_display_name: 'again' },
  })
  const again = { ...phone, token: login.access_token }
  const { body: device } = await server.call('GET', `${V3}/devices/PHONE`, again)
  assert.equal(device.display_name, 'again')
  assert.deepEqual(await claim(server, bob.token, phone), {})

  const after = await uploadKeys(server, again, ['AAAA', 'AAAB', 'AAAC'])
  assert.deepEqual(after['dev.latchkey.outcomes'], {
    'signed_curve25519:AAAA': 'already_issued',
    'signed_curve25519:AAAB': 'already_removed',
    'signed_curve25519:AAAC': 'stored',
  })
  const [was, is] = [before, after].map((body) => body['dev.latchkey.key_pool'])
  assert.equal(was.epoch, is.epoch)
  assert.ok(is.version > was.version && is.generation > was.generation, JSON.stringify([was, is]))
})

test('a reused device ID may have any identity, including a former one', async () => {
  await using server = await startTestServer()
  const phone = await server.login('alice', 'PHONE')
  await publish(server, phone, 'first')
  await publish(server, phone, 'second')
  await server.call('POST', `${V3}/logout`, { token: phone.token })
  const again = await server.login('alice', 'PHONE')
  // Keys need no signature while the identity of this device has not changed.
  await publish(server, again, 'second')
  assert.equal((await uploadOneTimeKeys(server, again, ['AAAA'])).status, 200)
  await publish(server, again, 'first')
})

test('the signatures on a device are removed with it', async () => {
  await using server = await startTestServer()
  const phone = await server.login('alice', 'PHONE')
  const tablet = await server.login('alice', 'TABLET')
  const identity = signingKeyPair()
  const device_keys = deviceKeysOf(tablet, identity)
  const pairs = crossSigningPairs()
  const signed = pairs.selfSigning.sign(phone.userId, device_keys)
  const post = (path: string, device: TestDevice, body: object): ReturnType<typeof server.call> =>
    server.call('POST', `${V3}${path}`, { token: device.token, body })
  await post('/keys/upload', tablet, { device_keys })
  await post('/keys/device_signing/upload', phone, crossSigningBody(phone.userId, pairs))
  const added = await post('/keys/signatures/upload', phone, { [phone.userId]: { TABLET: signed } })
  assert.deepEqual(added.body, { failures: {} })
  const signersOfTablet = async (): Promise<number> => {
    const { body } = await post('/keys/query', phone, { device_keys: { [phone.userId]: [] } })
    return Object.keys(body.device_keys[phone.userId].TABLET.signatures[phone.userId]).length
  }
  assert.equal(await signersOfTablet(), 2)
  await post('/logout', tablet, {})
  await post('/keys/upload', await server.login('alice', 'TABLET'), { device_keys })
  assert.equal(await signersOfTablet(), 1)
})

test('messages that wait for a removed device are not delivered when its ID is reused', async () => {
  await using server = await startTestServer()
  const phone = await server.login('alice', 'PHONE')
  const bob = await server.login('bob', 'LAPTOP')
  const send = (transaction: string): ReturnType<typeof server.call> =>
    server.call('PUT', `${V3}/sendToDevice/m.test/${transaction}`, {
      token: bob.token,
      body: { messages: { [phone.userId]: { PHONE: { transaction } } } },
    })
  assert.equal((await send('one')).status, 200)
  await server.call('POST', `${V3}/logout`, { token: phone.token })
  assert.equal((await send('two')).status, 200)
  const again = await server.login('alice', 'PHONE')
  assert.equal((await send('three')).status, 200)
  const { body } = await server.call('GET', `${V3}/sync`, { token: again.token })
  assert.deepEqual(
    body.to_device.events.map((event: { content: unknown }) => event.content),
    [{ transaction: 'three' }],
  )
})

test('a waiting sync is answered at once when its device is removed', async () => {
  await using server = await startTestServer()
  const phone = await server.login('alice', 'PHONE')
  const tablet = await server.login('alice', 'TABLET')
  const since = await syncToken(server, tablet.token)
  const poll = await longPoll(server, tablet, since)
  const body = { devices: ['TABLET'], auth: passwordAuth('alice') }
  await server.call('POST', `${V3}/delete_devices`, { token: phone.token, body })
  const removedMs = performance.now()
  const answer = await poll.answer
  assert.ok(performance.now() - removedMs < 2_000, 'the removal woke it')
  assert.deepEqual([answer.status, answer.body.errcode], [401, 'M_UNKNOWN_TOKEN'])
})

test('a login under a new device ID is a device list change; one on an existing device is not', async () => {
  await using server = await startTestServer()
  const phone = await server.login('alice', 'PHONE')
  await server.login('alice', 'TABLET')
  const since = await syncToken(server, phone.token)
  await server.login('alice', 'TABLET')
  assert.deepEqual(await changedSince(server, phone.token, since), [])
  await server.login('alice', 'LAPTOP')
  assert.deepEqual(await changedSince(server, phone.token, since), [phone.userId])
})

test('uploads that race with the end of their session leave no key behind', async () => {
  await using server = await startTestServer()
  const bob = await server.login('bob', 'LAPTOP')
  for (let round = 0; round < 5; round++) {
    const phone = await server.login('alice', 'PHONE')
    const uploads = Array.from({ length: 8 }, (_, i) => uploadOneTimeKeys(server, phone, [`R${round}I${i}`]))
    const logout = server.call('POST', `${V3}/logout`, { token: phone.token })
    const statuses = (await Promise.all([...uploads, logout])).map((answer) => answer.status)
    assert.ok(
      statuses.every((status) => status === 200 || status === 401),
      String(statuses),
    )
    assert.deepEqual(await claim(server, bob.token, phone), {})
  }
})
