/** The fallback key: rotation, expiry of the former one, and limits on the server's influence. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'
import { ManagerDevice } from '../support/manager/device.ts'
import { Rival } from '../support/manager/rival.ts'
import { Sender } from '../support/manager/sender.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

let server: TestServer
before(async () => {
  server = await startTestServer()
})
after(async () => {
  await server[Symbol.asyncDispose]()
})

let pairs = 0
async function pair() {
  const number = ++pairs
  const clock = { now: Date.now() }
  const options = { user: `bob${number}`, deviceId: 'BOB', now: () => clock.now }
  const bob = await ManagerDevice.ready(server.url, options)
  return { bob, alice: await Sender.signIn(server.url, `alice${number}`), clock }
}

function rotations(bob: ManagerDevice): string[] {
  return bob.events.flatMap((event) => (event.type === 'fallback_rotated' ? [event.trigger] : []))
}

test('a used fallback key is rotated, and the former one works until its grace time is over', async () => {
  const { bob, alice, clock } = await pair()
  await alice.session.claimMany(bob.userId, bob.deviceId, 50)
  const { key, isFallback } = await alice.claim(bob.target)
  assert.ok(isFallback)
  await bob.catchUp()
  assert.deepEqual(rotations(bob), ['missing'], 'it is not a day old')
  clock.now += DAY_MS
  await bob.catchUp()
  assert.deepEqual(rotations(bob), ['missing', 'used'])
  assert.equal((await bob.audit()).fallbackKeys.length, 2)
  await alice.send(bob.target, alice.encryptWith(bob.target, key, 'within the hour'))
  clock.now += HOUR_MS - 1
  await bob.catchUp()
  assert.deepEqual(bob.texts(), ['within the hour'])
  clock.now += 1
  await bob.catchUp()
  assert.equal((await bob.audit()).fallbackKeys.length, 1)
  await alice.send(bob.target, alice.encryptWith(bob.target, key, 'after it'))
  await bob.sync()
  assert.equal(bob.failures[0]?.verdict, 'fallback_replaced')
  await bob.assertSubset()
})

test('it is rotated after seven days, used or not', async () => {
  const { bob, clock } = await pair()
  clock.now += 7 * DAY_MS - 1
  await bob.catchUp()
  assert.deepEqual(rotations(bob), ['missing'])
  clock.now += 1
  await bob.catchUp()
  assert.deepEqual(rotations(bob), ['missing', 'age'])
  await bob.assertSubset()
})

test('a server that always reports use gets one new key a day, and two private halves are kept', async () => {
  const { bob, clock } = await pair()
  bob.rewriteSync = (answer) => ({ ...answer, device_unused_fallback_key_types: [] })
  const start = clock.now
  while (clock.now <= start + 3 * DAY_MS) {
    await bob.catchUp()
    assert.ok((await bob.audit()).fallbackKeys.length <= 2)
    await bob.assertSubset()
    clock.now += 6 * HOUR_MS
  }
  assert.equal(rotations(bob).length, 1 + 3)
})

test('an answer that reports the fallback key alone is applied', async () => {
  const { bob, clock } = await pair()
  clock.now += DAY_MS
  const ticket = await bob.manager.syncStarted()
  const { next_batch } = await bob.askSync()
  await bob.receive({ next_batch, device_unused_fallback_key_types: [] }, ticket)
  await bob.sendRequests()
  assert.deepEqual(rotations(bob), ['missing', 'used'])
})

test('a clock that was moved back neither rotates the key nor keeps the former one indefinitely', async () => {
  const { bob, clock } = await pair()
  clock.now += DAY_MS
  bob.rewriteSync = (answer) => ({ ...answer, device_unused_fallback_key_types: [] })
  await bob.catchUp()
  bob.rewriteSync = (answer) => answer
  clock.now -= 365 * DAY_MS
  await bob.catchUp()
  assert.deepEqual(rotations(bob), ['missing', 'used'])
  assert.equal((await bob.audit()).fallbackKeys.length, 2)
  clock.now += HOUR_MS
  await bob.catchUp()
  assert.equal((await bob.audit()).fallbackKeys.length, 1)
  clock.now += 7 * DAY_MS
  await bob.catchUp()
  assert.deepEqual(rotations(bob), ['missing', 'used', 'age'])
})

test('a fallback key on the server that is not ours is replaced at once, as a heal', async () => {
  const { bob, alice } = await pair()
  const rival = await Rival.of(bob)
  await rival.uploadFallbackKey('signed_curve25519:RIVAL')
  await bob.catchUp()
  await bob.assertSubset()
  assert.deepEqual(rotations(bob), ['missing', 'heal'])
  assert.equal((await bob.manager.history())[0]?.cause, 'unknown_fallback_key')
  await alice.session.claimMany(bob.userId, bob.deviceId, 50)
  const { key, isFallback } = await alice.claim(bob.target)
  assert.ok(isFallback)
  await alice.send(bob.target, alice.encryptWith(bob.target, key, 'on the healed one'))
  await bob.sync()
  assert.deepEqual(bob.texts(), ['on the healed one'])
})

test('an upload with a new fallback key whose answer was lost is repeated unchanged', async () => {
  const { bob, clock } = await pair()
  clock.now += 8 * DAY_MS
  await bob.sync()
  await bob.loseNextAnswer()
  await bob.crash()
  await bob.catchUp()
  const [, first, second, ...more] = bob.uploads
  assert.equal(first?.request.body, second?.request.body)
  assert.deepEqual(more, [])
  await bob.assertSubset()
})

test('a dead fallback key on the server is replaced at once, even within the grace time', async () => {
  const { bob, clock } = await pair()
  clock.now += 8 * DAY_MS
  await bob.catchUp()
  assert.deepEqual(rotations(bob), ['missing', 'age'])
  const rival = await Rival.of(bob)
  await rival.uploadFallbackKey('signed_curve25519:RIVAL')
  await bob.sync()
  assert.deepEqual(await bob.manager.history(), [], 'nothing is healed yet')
  await bob.sendRequests()
  await bob.assertSubset()
  assert.deepEqual(rotations(bob), ['missing', 'age', 'heal'])
  assert.deepEqual(
    (await bob.manager.history()).map(({ detail, ok }) => [detail, ok]),
    [['published a fresh fallback key', true]],
  )
})
