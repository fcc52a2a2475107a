/** The life of keys with an unmodified OlmMachine: published, claimed, used up, refilled, deleted. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { startTestServer } from '@latchkey/testing/test-server.ts'
import { waitForLongPoll } from '@latchkey/testing/long-poll.ts'
import { PASSWORD } from '@latchkey/testing/matrix-session.ts'
import { OlmDevice } from '@latchkey/testing/olm-device.ts'
import { within } from '@latchkey/testing/within.ts'

const server = await startTestServer()
after(() => server[Symbol.asyncDispose]())

function ready(user: string, deviceId = 'PHONE'): Promise<OlmDevice> {
  return OlmDevice.ready(server.url, { user, deviceId })
}

test('a new device publishes its identity, 50 one-time keys and a fallback key in one request', async () => {
  using alice = await ready('publish-alice')
  assert.equal(alice.uploads.length, 1)
  const { sent, status, body } = alice.lastUpload
  assert.equal(status, 200)
  const {
    device_keys: deviceKeys,
    one_time_keys: oneTimeKeys,
    fallback_keys: fallbackKeys,
  } = JSON.parse(sent)
  assert.equal(deviceKeys.device_id, 'PHONE')
  assert.equal(Object.keys(oneTimeKeys).length, 50)
  assert.equal(Object.keys(fallbackKeys).length, 1)
  assert.deepEqual(body.one_time_key_counts, { signed_curve25519: 50 })

  const answer = await alice.catchUp()
  assert.deepEqual(answer.device_one_time_keys_count, { signed_curve25519: 50 })
  assert.deepEqual(answer.device_unused_fallback_key_types, ['signed_curve25519'])
  assert.equal(alice.uploads.length, 1, 'a complete device uploads nothing more')
})

test('messages are decrypted both ways, and each claimed key is replaced', async () => {
  using alice = await ready('talk-alice')
  using bob = await ready('talk-bob')
  using carol = await ready('talk-carol')
  const forBob = await bob.write(alice, 'hello from Bob')
  const forCarol = await carol.write(alice, 'hello from Carol')
  assert.ok(forBob && forCarol)
  assert.notEqual(forBob.key, forCarol.key)
  const answer = await alice.catchUp()
  assert.deepEqual(alice.received, [
    { sender: bob.userId, text: 'hello from Bob' },
    { sender: carol.userId, text: 'hello from Carol' },
  ])
  assert.deepEqual(answer.device_one_time_keys_count, { signed_curve25519: 48 })
  assert.equal(Object.keys(JSON.parse(alice.lastUpload.sent).one_time_keys).length, 2)
  assert.deepEqual(alice.lastUpload.body.one_time_key_counts, { signed_curve25519: 50 })

  assert.equal(await alice.write(bob, 'hello Bob'), undefined, 'the session that Bob began serves both')
  await bob.catchUp()
  assert.deepEqual(bob.received, [{ sender: alice.userId, text: 'hello Bob' }])
  assert.deepEqual([...alice.warnings, ...bob.warnings, ...carol.warnings], [])
})

test('without one-time keys, two senders use the fallback key; the device decrypts both and learns it', async () => {
  using alice = await ready('fallback-alice')
  using bob = await ready('fallback-bob')
  const claimed = await bob.session.claimMany(alice.userId, alice.deviceId, 50)
  assert.equal(new Set(claimed.map(({ key }) => key)).size, 50)
  assert.ok(claimed.every(({ isFallback }) => !isFallback))

  using carol = await ready('fallback-carol')
  using dave = await ready('fallback-dave')
  const forCarol = await carol.write(alice, 'Carol, by the fallback key')
  const forDave = await dave.write(alice, 'Dave, by the fallback key')
  assert.equal(forCarol?.isFallback, true)
  assert.deepEqual(forDave, forCarol)

  const answer = await alice.catchUp()
  assert.deepEqual(answer.device_one_time_keys_count, { signed_curve25519: 0 })
  assert.deepEqual(answer.device_unused_fallback_key_types, [])
  assert.deepEqual(alice.undecryptable, [])
  assert.deepEqual(
    alice.received.map(({ text }) => text),
    ['Carol, by the fallback key', 'Dave, by the fallback key'],
  )
  assert.deepEqual(alice.lastUpload.body.one_time_key_counts, { signed_curve25519: 50 })
})

test('a waiting sync returns when half of the keys are claimed, and the device refills', async () => {
  using alice = await ready('wake-alice')
  using bob = await ready('wake-bob')
  await alice.catchUp()
  const waiting = alice.sync({ timeoutMs: 60_000 })
  await waitForLongPoll(server, waiting)

  await bob.session.claimMany(alice.userId, alice.deviceId, 24)
  assert.equal(server.context.waiters.count, 1, '26 of 50 keys do not wake the device')
  await bob.session.claimMany(alice.userId, alice.deviceId, 1)
  const answer = await within('the sync of a device that runs low', waiting)
  assert.deepEqual(answer.device_one_time_keys_count, { signed_curve25519: 25 })

  await alice.sendRequests()
  assert.deepEqual(alice.lastUpload.body.one_time_key_counts, { signed_curve25519: 50 })
})

test('a device that lost its store publishes a new identity under its old ID and can be written to', async () => {
  using lost = await ready('identity-alice')
  using bob = await ready('identity-bob')
  await bob.write(lost, 'to the old identity')
  const old = JSON.parse(lost.lastUpload.sent).one_time_keys

  using alice = await ready('identity-alice')
  assert.equal(alice.deviceId, lost.deviceId)
  assert.equal(alice.lastUpload.status, 200)
  const fresh = JSON.parse(alice.lastUpload.sent).one_time_keys
  assert.deepEqual(
    Object.keys(fresh),
    Object.keys(old),
    'the machine counts its key IDs from the start again',
  )
  assert.deepEqual(alice.lastUpload.body.one_time_key_counts, { signed_curve25519: 50 })

  using carol = await ready('identity-carol')
  const claimed = await carol.write(alice, 'to the new identity')
  assert.ok(claimed && fresh[claimed.name].key === claimed.key)
  await alice.catchUp()
  assert.deepEqual(
    alice.received.map(({ text }) => text),
    ['to the new identity'],
  )
})

test('a deleted device disappears from tracked device lists, and its ID can be reused', async () => {
  using phone = await ready('delete-alice', 'PHONE')
  using laptop = await ready('delete-alice', 'LAPTOP')
  using bob = await ready('delete-bob')
  await bob.write(phone, 'before')

  const challenge = await laptop.session.call('DELETE', '/v3/devices/PHONE', {})
  assert.equal(challenge.status, 401)
  await laptop.session.ok('DELETE', '/v3/devices/PHONE', {
    auth: {
      type: 'm.login.password',
      identifier: { type: 'm.id.user', user: phone.userId },
      password: PASSWORD,
      session: challenge.body.session,
    },
  })
  assert.equal((await phone.session.call('GET', '/v3/sync')).status, 401)
  const none = { [phone.userId]: { PHONE: 'signed_curve25519' } }
  assert.deepEqual(
    (await bob.session.ok('POST', '/v3/keys/claim', { one_time_keys: none })).one_time_keys,
    {},
  )
  const answer = await bob.catchUp()
  assert.ok(answer.device_lists.changed.includes(phone.userId))
  await assert.rejects(bob.send(phone, 'after'), /does not know/)

  using again = await ready('delete-alice', 'PHONE')
  assert.equal(again.lastUpload.status, 200)
  await bob.catchUp()
  await bob.write(again, 'to the new phone')
  await again.catchUp()
  assert.deepEqual(
    again.received.map(({ text }) => text),
    ['to the new phone'],
  )
})
