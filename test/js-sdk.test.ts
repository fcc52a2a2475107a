/** An unmodified matrix-js-sdk client with the server, alone, with another one, and with a bare OlmMachine. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { startTestServer, TEST_CONFIG } from '@latchkey/testing/test-server.ts'
import { JsSdkClient } from '@latchkey/testing/js-sdk-client.ts'
import { MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { OlmDevice } from '@latchkey/testing/olm-device.ts'

const server = await startTestServer()
after(() => server[Symbol.asyncDispose]())

function start(user: string): Promise<JsSdkClient> {
  return JsSdkClient.start(server.url, user, 'SDK')
}

function counts(client: JsSdkClient): unknown {
  return client.uploads.at(-1)?.body.one_time_key_counts
}

function isFull(client: JsSdkClient): boolean {
  return client.uploads.at(-1)?.body.one_time_key_counts.signed_curve25519 === 50
}

test('a client starts, publishes its keys once, and gets only expected errors', async () => {
  using alice = await start('start-alice')
  assert.equal(alice.uploads.length, 1)
  const [upload] = alice.uploads
  assert.equal(upload?.sent.device_keys.device_id, 'SDK')
  assert.equal(Object.keys(upload?.sent.one_time_keys).length, 50)
  assert.equal(Object.keys(upload?.sent.fallback_keys).length, 1)
  assert.deepEqual(counts(alice), { signed_curve25519: 50 })

  const refused = alice.exchanges.filter(({ status }) => status !== 200)
  assert.deepEqual(
    refused.map(({ path, status, body }) => `${status} ${body.errcode} ${path}`),
    [
      '404 M_NOT_FOUND /v3/room_keys/version',
      '404 M_UNRECOGNIZED /unstable/org.matrix.msc4143/rtc/transports',
    ],
  )
})

test('two clients write to each other, and each claimed key is replaced', async () => {
  using alice = await start('talk-alice')
  using bob = await start('talk-bob')
  await bob.watch(alice)
  await bob.write(alice, 'hello Alice')
  await alice.until('the first message', () => alice.received.length === 1)
  assert.deepEqual(alice.received, [{ sender: bob.userId, text: 'hello Alice' }])
  await alice.until('the refill', () => alice.uploads.length === 2)
  assert.equal(Object.keys(alice.uploads[1]?.sent.one_time_keys).length, 1)
  assert.deepEqual(counts(alice), { signed_curve25519: 50 })

  await alice.watch(bob)
  await alice.write(bob, 'hello Bob')
  await bob.until('the answer', () => bob.received.length === 1)
  assert.deepEqual(bob.received, [{ sender: alice.userId, text: 'hello Bob' }])
})

test('a client and a bare OlmMachine write to each other', async () => {
  using alice = await start('mixed-alice')
  using bob = await OlmDevice.ready(server.url, { user: 'mixed-bob', deviceId: 'PHONE' })
  const claimed = await bob.write(alice, 'from the machine')
  assert.equal(claimed?.isFallback, false)
  await alice.until('the message', () => alice.received.length === 1)
  assert.deepEqual(alice.received, [{ sender: bob.userId, text: 'from the machine' }])

  using carol = await OlmDevice.ready(server.url, { user: 'mixed-carol', deviceId: 'PHONE' })
  await alice.watch(carol)
  await alice.write(carol, 'from the client')
  await carol.catchUp()
  assert.deepEqual(carol.received, [{ sender: alice.userId, text: 'from the client' }])
  assert.deepEqual(carol.undecryptable, [])
})

test('an offline client runs out of keys, decrypts two messages on its fallback key, and refills', async () => {
  using alice = await start('fallback-alice')
  alice.pause()
  using bob = await OlmDevice.ready(server.url, { user: 'fallback-bob', deviceId: 'PHONE' })
  const claimed = await bob.session.claimMany(alice.userId, alice.deviceId, 50)
  assert.equal(new Set(claimed.map(({ key }) => key)).size, 50)
  using carol = await OlmDevice.ready(server.url, { user: 'fallback-carol', deviceId: 'PHONE' })
  using dave = await start('fallback-dave')
  const forCarol = await carol.write(alice, 'Carol')
  assert.equal(forCarol?.isFallback, true)
  await dave.watch(alice)
  await dave.write(alice, 'Dave')

  alice.resume()
  await alice.until('both messages', () => alice.received.length === 2)
  assert.deepEqual(new Set(alice.received.map(({ text }) => text)), new Set(['Carol', 'Dave']))
  await alice.until('the refill', () => isFull(alice))
})

test('a client that waits in a sync is woken at low water, and refills', async () => {
  using alice = await start('wake-alice')
  using bob = await OlmDevice.ready(server.url, { user: 'wake-bob', deviceId: 'PHONE' })
  await bob.session.claimMany(alice.userId, alice.deviceId, 30)
  await alice.until('the refill', () => alice.uploads.length > 1 && isFull(alice))
})

test('cross-signing keys are published, replaced only with the password, and seen by others', async () => {
  using alice = await start('sign-alice')
  const signing = (): string[] =>
    alice.exchanges
      .filter(({ path }) => path === '/v3/keys/device_signing/upload')
      .map(({ status, sent }) => `${status} ${sent.auth?.type ?? 'no auth'}`)
  await alice.bootstrapCrossSigning()
  assert.deepEqual(signing(), ['200 no auth'])
  await alice.bootstrapCrossSigning()
  assert.deepEqual(signing().slice(1), ['401 no auth', '200 m.login.password'])

  using bob = await OlmDevice.ready(server.url, { user: 'sign-bob', deviceId: 'PHONE' })
  await bob.watch(alice)
  const seen = await bob.session.ok('POST', '/v3/keys/query', { device_keys: { [alice.userId]: [] } })
  const selfSigning = Object.keys(seen.self_signing_keys[alice.userId].keys)
  const signatures = Object.keys(seen.device_keys[alice.userId].SDK.signatures[alice.userId])
  assert.ok(selfSigning.length === 1 && selfSigning.every((key) => signatures.includes(key)))
  assert.deepEqual(seen.user_signing_keys, {})
  assert.equal(await bob.isSignedByOwner(alice), true, 'the signatures hold for another client')
})

test('a client receives all account data and messages of a first sync in pages', async () => {
  await using small = await startTestServer({ sizes: { ...TEST_CONFIG.sizes, syncPageBytes: 2000 } })
  const other = await MatrixSession.signIn(small.url, 'paged-alice', 'OTHER')
  const types = Array.from({ length: 40 }, (_, i) => `org.example.type${i}`)
  for (const [i, type] of types.entries())
    await other.ok('PUT', `/v3/user/${other.userId}/account_data/${type}`, { i, text: 'x'.repeat(300) })

  using alice = await JsSdkClient.start(small.url, 'paged-alice', 'SDK')
  await alice.until('all account data', () => types.every((type, i) => alice.accountData(type)?.i === i))
  const syncs = alice.exchanges.filter(({ path, body }) => path === '/v3/sync' && body.account_data)
  assert.ok(syncs.length >= 6, `${syncs.length} answers carried account data`)

  using bob = await OlmDevice.ready(small.url, { user: 'paged-bob', deviceId: 'PHONE' })
  await bob.watch(alice)
  alice.pause()
  const texts = Array.from({ length: 12 }, (_, i) => `${i} ${'y'.repeat(500)}`)
  for (const text of texts) await bob.write(alice, text)
  alice.resume()
  await alice.until('all messages', () => alice.received.length === texts.length)
  assert.deepEqual(
    alice.received.map(({ text }) => text),
    texts,
  )
})
