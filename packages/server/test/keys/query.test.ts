/** `/keys/query` and device lists: the keys that each user sees, and the changes that each user is notified of. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import {
  crossSigningBody,
  crossSigningPairs,
  deviceKeysOf,
  signingKeyPair,
} from '@latchkey/testing/signing.ts'
import { longPoll } from '@latchkey/testing/test-client.ts'
import {
  type AnyJson,
  startTestServer,
  type TestDevice,
  type TestServer,
} from '@latchkey/testing/test-server.ts'

const V3 = '/_matrix/client/v3'

async function post(server: TestServer, device: TestDevice, path: string, body: unknown): Promise<AnyJson> {
  const answer = await server.call('POST', V3 + path, { token: device.token, body })
  assert.equal(answer.status, 200, JSON.stringify(answer.body))
  return answer.body
}

function query(server: TestServer, device: TestDevice, deviceKeys: unknown): Promise<AnyJson> {
  return post(server, device, '/keys/query', { device_keys: deviceKeys })
}

/** Uploads device keys and returns them. */
async function publish(server: TestServer, device: TestDevice): Promise<AnyJson> {
  const deviceKeys = deviceKeysOf(device, signingKeyPair())
  await post(server, device, '/keys/upload', { device_keys: deviceKeys })
  return deviceKeys
}

async function syncToken(server: TestServer, device: TestDevice): Promise<string> {
  const { body } = await server.call('GET', `${V3}/sync?timeout=0`, { token: device.token })
  return body.next_batch
}

async function changes(server: TestServer, device: TestDevice, from: string): Promise<AnyJson> {
  const path = `${V3}/keys/changes?from=${encodeURIComponent(from)}`
  const { status, body } = await server.call('GET', path, { token: device.token })
  assert.equal(status, 200, JSON.stringify(body))
  return { ...body, changed: body.changed.sort() }
}

suite('keys/query', () => {
  test('the answer has every requested local user, with the devices that have keys', async () => {
    await using server = await startTestServer()
    const alice = await server.login('alice', 'PHONE')
    await server.login('alice', 'KEYLESS')
    const bob = await server.login('bob')
    const keys = await publish(server, alice)
    const answer = await query(server, bob, {
      [alice.userId]: [],
      [bob.userId]: [],
      '@unknown:test.example': [],
    })
    assert.deepEqual(answer, {
      device_keys: {
        [alice.userId]: { PHONE: { ...keys, unsigned: {} } },
        [bob.userId]: {},
        '@unknown:test.example': {},
      },
      failures: {},
      master_keys: {},
      self_signing_keys: {},
      user_signing_keys: {},
    })
  })

  test('the answer has only the requested devices, without unknown ones', async () => {
    await using server = await startTestServer()
    const phone = await server.login('alice', 'PHONE')
    const tablet = await server.login('alice', 'TABLET')
    await publish(server, phone)
    await publish(server, tablet)
    const answer = await query(server, phone, { [phone.userId]: ['TABLET', 'TABLET', 'GONE', '__proto__'] })
    assert.deepEqual(Object.keys(answer.device_keys[phone.userId]), ['TABLET'])
  })

  test('a display name is in the answer once it is set', async () => {
    await using server = await startTestServer()
    const alice = await server.login('alice', 'PHONE')
    await publish(server, alice)
    const renamed = await server.call('PUT', `${V3}/devices/PHONE`, {
      token: alice.token,
      body: { display_name: 'My phone' },
    })
    assert.equal(renamed.status, 200)
    const answer = await query(server, alice, { [alice.userId]: [] })
    const { unsigned } = answer.device_keys[alice.userId].PHONE
    assert.deepEqual(unsigned, { device_display_name: 'My phone' })
  })

  test('a removed device is not in the answer', async () => {
    await using server = await startTestServer()
    const phone = await server.login('alice', 'PHONE')
    const bob = await server.login('bob')
    await publish(server, phone)
    await post(server, phone, '/logout', {})
    const answer = await query(server, bob, { [phone.userId]: [] })
    assert.deepEqual(answer.device_keys, { [phone.userId]: {} })
  })

  test('users of other servers are in failures, and invalid user IDs are ignored', async () => {
    await using server = await startTestServer()
    const alice = await server.login('alice')
    const answer = await query(server, alice, { '@carol:far.example': [], nonsense: [], ['__proto__']: [] })
    assert.deepEqual(answer.device_keys, {})
    assert.equal(answer.failures['far.example'].status, 503)
    assert.equal(typeof answer.failures['far.example'].message, 'string')
  })

  test('a malformed query is refused with M_BAD_JSON', async () => {
    await using server = await startTestServer()
    const { token, userId } = await server.login('alice')
    const bad: unknown[] = [
      {},
      { device_keys: null },
      { device_keys: [] },
      { device_keys: 'all' },
      { device_keys: { [userId]: { PHONE: true } } },
      { device_keys: { [userId]: ['PHONE', 7] } },
      { device_keys: { [userId]: null } },
      '{"device_keys":{"__proto__":{}}}',
    ]
    for (const body of bad) {
      const answer = await server.call('POST', `${V3}/keys/query`, { token, body })
      assert.equal(answer.status, 400, JSON.stringify(body))
      assert.equal(answer.body.errcode, 'M_BAD_JSON', JSON.stringify(body))
    }
  })

  test('a query for more than 10 000 users is refused, and one for 10 000 is answered', async () => {
    await using server = await startTestServer()
    const { token } = await server.login('alice')
    const users = (count: number): AnyJson =>
      Object.fromEntries(Array.from({ length: count }, (_, i) => [`@u${i}:test.example`, []]))
    const path = `${V3}/keys/query`
    const tooMany = await server.call('POST', path, { token, body: { device_keys: users(10_001) } })
    assert.equal(tooMany.status, 400)
    assert.equal(tooMany.body.errcode, 'M_INVALID_PARAM')
    const many = await server.call('POST', path, { token, body: { device_keys: users(10_000) } })
    assert.equal(Object.keys(many.body.device_keys).length, 10_000)
  })

  test('only its owner sees a user-signing key', async () => {
    await using server = await startTestServer()
    const alice = await server.login('alice')
    const bob = await server.login('bob')
    const body = crossSigningBody(alice.userId, crossSigningPairs())
    await post(server, alice, '/keys/device_signing/upload', body)
    const own = await query(server, alice, { [alice.userId]: [] })
    assert.deepEqual(own.master_keys, { [alice.userId]: body.master_key })
    assert.deepEqual(own.self_signing_keys, { [alice.userId]: body.self_signing_key })
    assert.deepEqual(own.user_signing_keys, { [alice.userId]: body.user_signing_key })
    const other = await query(server, bob, { [alice.userId]: [] })
    assert.deepEqual(other.master_keys, own.master_keys)
    assert.deepEqual(other.self_signing_keys, own.self_signing_keys)
    assert.deepEqual(other.user_signing_keys, {})
  })
})

suite('device lists', () => {
  test('a change is reported to its user and to users who queried their keys, and to no one else', async () => {
    await using server = await startTestServer()
    const alice = await server.login('alice')
    const bob = await server.login('bob')
    const carol = await server.login('carol')
    await query(server, bob, { [alice.userId]: [] })
    const [forAlice, forBob, forCarol] = await Promise.all(
      [alice, bob, carol].map((device) => syncToken(server, device)),
    )
    await publish(server, alice)
    assert.deepEqual(await changes(server, alice, forAlice ?? ''), { changed: [alice.userId], left: [] })
    assert.deepEqual(await changes(server, bob, forBob ?? ''), { changed: [alice.userId], left: [] })
    assert.deepEqual(await changes(server, carol, forCarol ?? ''), { changed: [], left: [] })
  })

  test('a change before the token is not reported again', async () => {
    await using server = await startTestServer()
    const alice = await server.login('alice')
    const bob = await server.login('bob')
    await query(server, bob, { [alice.userId]: [] })
    await publish(server, alice)
    const token = await syncToken(server, bob)
    assert.deepEqual(await changes(server, bob, token), { changed: [], left: [] })
  })

  test('a change wakes a waiting sync of a user who queried the keys', { timeout: 20_000 }, async () => {
    await using server = await startTestServer()
    const alice = await server.login('alice')
    const bob = await server.login('bob')
    await query(server, bob, { [alice.userId]: [] })
    const since = await syncToken(server, bob)
    const waiting = await longPoll(server, bob, since)
    await publish(server, alice)
    const { body } = await waiting.answer
    assert.deepEqual(body.device_lists.changed, [alice.userId])
  })

  test('a bad token, or one of another user, reports every tracked user as changed', async () => {
    await using server = await startTestServer()
    const alice = await server.login('alice')
    const bob = await server.login('bob')
    await server.login('carol')
    await query(server, bob, { [alice.userId]: [], [bob.userId]: [] })
    const everyone = { changed: [alice.userId, bob.userId], left: [] }
    assert.deepEqual(await changes(server, bob, 'nonsense'), everyone)
    assert.deepEqual(await changes(server, bob, await syncToken(server, alice)), everyone)
  })

  test('keys/changes without from is refused, and to is ignored', async () => {
    await using server = await startTestServer()
    const { token, ...alice } = await server.login('alice')
    const missing = await server.call('GET', `${V3}/keys/changes`, { token })
    assert.equal(missing.status, 400)
    assert.equal(missing.body.errcode, 'M_MISSING_PARAM')
    const from = await syncToken(server, { token, ...alice })
    const answer = await server.call('GET', `${V3}/keys/changes?from=${from}&to=nonsense`, { token })
    assert.equal(answer.status, 200)
  })

  test('the first keys of a user are reported to a user who queried them before their registration', {
    timeout: 20_000,
  }, async () => {
    await using server = await startTestServer()
    const alice = await server.login('alice')
    const carol = await server.login('carol')
    const name = '@bob:test.example'
    for (let i = 0; i < 2; i++) {
      assert.deepEqual((await query(server, alice, { [name]: [] })).device_keys, { [name]: {} })
    }
    const from = await syncToken(server, alice)
    const waiting = await longPoll(server, alice, from)
    const bob = await server.login('bob')
    assert.deepEqual((await waiting.answer).body.device_lists, { changed: [name], left: [] })
    const afterLogin = await syncToken(server, alice)
    await publish(server, bob)
    assert.deepEqual(await changes(server, alice, afterLogin), { changed: [name], left: [] })
    assert.deepEqual((await changes(server, carol, await syncToken(server, carol))).changed, [])
  })

  test('a user may query more names than are tracked, and the latest ones stay tracked', async () => {
    await using server = await startTestServer()
    const alice = await server.login('alice')
    const names = (prefix: string, count: number): Record<string, []> =>
      Object.fromEntries(Array.from({ length: count }, (_, i) => [`@${prefix}${i}:test.example`, []]))
    await query(server, alice, { '@bob:test.example': [] })
    await query(server, alice, names('x', 999))
    await query(server, alice, { '@carol:test.example': [], ...names('y', 5000) })
    const from = await syncToken(server, alice)
    for (const localpart of ['bob', 'x0', 'x998', 'carol', 'y0', 'y998', 'y999'])
      await server.login(localpart)
    const expected = ['@carol:test.example', '@y0:test.example', '@y998:test.example']
    assert.deepEqual((await changes(server, alice, from)).changed, expected)
  })

  test('tracked users survive a restart', async () => {
    await using first = await startTestServer()
    const alice = await first.login('alice')
    const bob = await first.login('bob')
    await query(first, bob, { [alice.userId]: [] })
    const token = await syncToken(first, bob)
    await first.close()
    await using second = await startTestServer({ dataDir: first.dataDir })
    await publish(second, alice)
    assert.deepEqual(await changes(second, bob, token), { changed: [alice.userId], left: [] })
  })
})
