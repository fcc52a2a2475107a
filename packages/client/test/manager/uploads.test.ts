/** Uploads: stored before they are sent, sent unchanged until they are answered, limited in number. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { AnyJson } from '@latchkey/testing/matrix-session.ts'
import { REFUSING, startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'
import { memoryStore } from '../../src/index.ts'
import { fileStore } from '../../src/node.ts'
import { ManagerDevice } from '../support/manager/device.ts'
import { Rival } from '../support/manager/rival.ts'
import { Sender } from '../support/manager/sender.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

let server: TestServer
before(async () => {
  server = await startTestServer(REFUSING)
})
after(async () => {
  await server[Symbol.asyncDispose]()
})

let pairs = 0
async function pair(more: Partial<Parameters<typeof ManagerDevice.ready>[1]> = {}) {
  const number = ++pairs
  const bob = await ManagerDevice.ready(server.url, { user: `bob${number}`, deviceId: 'BOB', ...more })
  return { bob, alice: await Sender.signIn(server.url, `alice${number}`) }
}

function keysOf(body: string | undefined): string[] {
  return Object.values<AnyJson>(JSON.parse(body ?? '{}').one_time_keys ?? {}).map(({ key }) => key)
}

test('an upload whose answer was lost is sent again byte for byte, also by the next process', async () => {
  const { bob, alice } = await pair()
  await alice.session.claimMany(bob.userId, bob.deviceId, 7)
  await bob.sync()
  await bob.loseNextAnswer()
  await bob.crash()
  await bob.sendRequests()
  const [, first, second, ...more] = bob.uploads
  assert.equal(keysOf(first?.request.body).length, 7)
  assert.equal(second?.request.body, first?.request.body)
  assert.deepEqual(more, [])
  assert.equal(await bob.assertSubset(), 50)
})

test('keys issued while the answer was lost stay decryptable, and are not uploaded again', async () => {
  const bob = await ManagerDevice.signIn(server.url, { user: 'lost', deviceId: 'BOB' })
  const alice = await Sender.signIn(server.url, 'finder')
  await bob.loseNextAnswer()
  const { key } = await alice.claim(bob.target)
  await alice.send(bob.target, alice.encryptWith(bob.target, key, 'from between'))
  await bob.sendRequests()
  await bob.catchUp()
  assert.deepEqual(bob.texts(), ['from between'])
  assert.equal(await bob.assertSubset(), 50)
})

test('two processes on one store send the same upload, and settle it once', async () => {
  const store = memoryStore()
  const bob = await ManagerDevice.signIn(server.url, { user: 'twice', deviceId: 'BOB', store })
  const other = await ManagerDevice.on(bob.session, { store })
  await Promise.all([bob.sendRequests(), other.sendRequests()])
  const bodies = new Set([...bob.uploads, ...other.uploads].map(({ request }) => request.body))
  assert.equal(bodies.size, 1)
  await Promise.all([bob.catchUp(), other.catchUp()])
  assert.equal(await bob.assertSubset(), 50)
  assert.equal((await bob.audit()).oneTimeKeys.length, 50)
})

test('a late duplicate of an answer changes nothing', async () => {
  const { bob } = await pair()
  const [first] = bob.uploads
  const generation = await bob.store.generation()
  assert.ok(first)
  await bob.manager.markRequestAsSent(first.request.id, { status: 200, body: first.body })
  assert.equal(await bob.store.generation(), generation)
})

test('429 and 5xx leave the request due, after the pause that the server asks for', async () => {
  let now = Date.now()
  const bob = await ManagerDevice.signIn(server.url, { user: 'slow', deviceId: 'BOB', now: () => now })
  bob.rewriteAnswer = ({ type }, answer) =>
    type === 'keys_upload'
      ? { status: 429, body: { errcode: 'M_LIMIT_EXCEEDED', retry_after_ms: 5_000 } }
      : answer
  await bob.sendRequests()
  assert.equal(bob.uploads.length, 1)
  assert.equal((await bob.manager.status()).retryInMs, 5_000)
  now += 4_999
  assert.deepEqual(await bob.manager.outgoingRequests(), [])
  now += 1
  bob.rewriteAnswer = (_request, answer) => answer
  await bob.sendRequests()
  assert.equal(bob.uploads[1]?.request.body, bob.uploads[0]?.request.body)
  assert.equal(await bob.assertSubset(), 50)
})

test('a pause ends when the clock is moved back', async () => {
  let now = Date.now()
  const bob = await ManagerDevice.signIn(server.url, { user: 'clock', deviceId: 'BOB', now: () => now })
  bob.rewriteAnswer = (_request, _answer) => ({ status: 503, body: {} })
  await bob.sendRequests()
  now -= DAY_MS
  bob.rewriteAnswer = (_request, answer) => answer
  await bob.sendRequests()
  assert.equal(await bob.assertSubset(), 50)
})

test('after 401 no request is returned, until the account is opened with another token', async () => {
  const bob = await ManagerDevice.signIn(server.url, { user: 'ended', deviceId: 'BOB' })
  bob.rewriteAnswer = (_request, _answer) => ({ status: 401, body: { errcode: 'M_UNKNOWN_TOKEN' } })
  await bob.sendRequests()
  bob.rewriteAnswer = (_request, answer) => answer
  assert.deepEqual(await bob.manager.outgoingRequests(), [])
  await bob.crash()
  await bob.sendRequests()
  assert.equal(await bob.assertSubset(), 50)
})

test('after 401 requests are returned again once a sync succeeds, because the app has refreshed its token', async () => {
  const bob = await ManagerDevice.signIn(server.url, { user: 'refreshed', deviceId: 'BOB' })
  bob.rewriteAnswer = (_request, _answer) => ({
    status: 401,
    body: { errcode: 'M_UNKNOWN_TOKEN', soft_logout: true },
  })
  await bob.sendRequests()
  assert.deepEqual(await bob.manager.outgoingRequests(), [])
  bob.rewriteAnswer = (_request, answer) => answer
  await bob.sync()
  await bob.sendRequests()
  assert.equal(await bob.assertSubset(), 50)
})

test('unknown is not zero: a sync without counts uploads nothing', async () => {
  const { bob, alice } = await pair()
  await alice.claim(bob.target)
  bob.rewriteSync = ({ to_device, next_batch }) => ({ to_device, next_batch })
  await bob.catchUp()
  assert.equal(bob.uploads.length, 1)
})

test('a count older than the last acknowledged upload is ignored', async () => {
  for (const level of ['latchkey', 'msc4162'] as const) {
    const bob = await ManagerDevice.signIn(server.url, { user: `stale-${level}`, deviceId: 'BOB' })
    bob.level = level
    const ticket = await bob.manager.syncStarted()
    const stale = await bob.askSync()
    assert.equal(stale.device_one_time_keys_count.signed_curve25519, 0)
    await bob.sendRequests()
    await bob.receive(stale, ticket)
    await bob.sendRequests()
    assert.equal(bob.uploads.length, 1, level)
    assert.deepEqual(bob.eventTypes(), ['server', 'fallback_rotated', 'stale_count'])
  }
})

test('a server that always reports zero gets no more than the budget of new keys', async () => {
  let now = Date.now()
  const { bob } = await pair({ now: () => now, limits: { newKeysPerDay: 80 } })
  bob.level = 'bare'
  bob.rewriteSync = (answer) => ({ ...answer, device_one_time_keys_count: { signed_curve25519: 0 } })
  for (let hour = 0; hour < 20; hour++) {
    await bob.catchUp()
    now += HOUR_MS
  }
  const published = bob.uploads.flatMap(({ request }) => keysOf(request.body))
  assert.equal(published.length, 80)
  assert.equal(bob.eventTypes().filter((type) => type === 'generation_limited').length, 1)
})

test('issued, unused keys occupy slots: the fallback key serves, and a day later the oldest drop', async () => {
  let now = Date.now()
  const { bob, alice } = await pair({ now: () => now })
  const claimed = await alice.session.claimMany(bob.userId, bob.deviceId, 50)
  await bob.catchUp()
  assert.equal(await bob.assertSubset(), 50)
  await alice.session.claimMany(bob.userId, bob.deviceId, 50)
  await bob.catchUp()
  assert.equal(await bob.assertSubset(), 0, 'no room: nothing is topped up')
  assert.equal((await bob.audit()).oneTimeKeys.length, 100)
  for (let halves = 0; halves < 2; halves++) {
    now += DAY_MS / 2
    await bob.catchUp()
  }
  assert.equal(await bob.assertSubset(), 25)
  assert.equal((await bob.audit()).oneTimeKeys.length, 100)
  const dropped = bob.events.filter(({ type }) => type === 'key_dropped')
  assert.equal(dropped.length, 25)
  const held = new Set((await bob.audit()).oneTimeKeys.map(({ publicKey }) => publicKey))
  const gone = claimed.find(({ key }) => !held.has(key))
  assert.ok(gone)
  await alice.send(bob.target, alice.encryptWith(bob.target, gone.key, 'too late'))
  await bob.sync()
  assert.equal(bob.failures[0]?.verdict, 'expired')
  assert.match((await bob.manager.explain(gone.key))[0]?.text ?? '', /dropped to free a slot/)
})

test('an issued key is dropped 30 days after its issue', async () => {
  let now = Date.now()
  const { bob, alice } = await pair({ now: () => now })
  const { key } = await alice.claim(bob.target)
  await bob.catchUp()
  const wait = async (days: number): Promise<void> => {
    for (let halves = 0; halves < 2 * days; halves++) {
      now += DAY_MS / 2
      await bob.catchUp()
    }
  }
  await wait(29)
  assert.equal((await bob.manager.explain(key))[0]?.state, 'issued')
  await wait(1)
  assert.equal((await bob.manager.explain(key))[0]?.state, 'expired')
  assert.ok(!(await bob.audit()).oneTimeKeys.some(({ publicKey }) => publicKey === key))
})

test('while more messages wait than one sync returns, no keys are added', async () => {
  const { bob, alice } = await pair()
  const claimed = await alice.session.claimMany(bob.userId, bob.deviceId, 50)
  for (const { key } of claimed) {
    for (const text of ['a', 'b', 'c']) {
      await alice.send(
        bob.target,
        text === 'a' ? alice.encryptWith(bob.target, key, key) : { type: 1, body: text },
      )
    }
  }
  await bob.catchUp()
  assert.equal(bob.uploads.length, 1, 'the first page is full: more messages follow')
  await bob.catchUp()
  assert.equal(bob.uploads.length, 2)
  assert.equal(bob.texts().length, 50)
  assert.equal((await bob.audit()).oneTimeKeys.length, 50)
})

test('a sender who fills every page cannot block refills indefinitely', async () => {
  const { bob, alice } = await pair()
  await alice.session.claimMany(bob.userId, bob.deviceId, 5)
  bob.rewriteSync = (answer) => ({
    ...answer,
    to_device: { events: Array.from({ length: 100 }, () => ({})) },
  })
  for (let syncs = 0; syncs < 11; syncs++) await bob.catchUp()
  assert.equal(bob.uploads.length, 2)
  assert.equal(await bob.assertSubset(), 50)
})

test('a clock that is temporarily far ahead or behind costs no key in flight', async () => {
  let now = Date.now()
  const { bob, alice } = await pair({ now: () => now })
  const { key } = await alice.claim(bob.target)
  const message = alice.encryptWith(bob.target, key, 'in flight')
  for (const days of [-400, 0, 40, 40.01, 0, -400, 2]) {
    now += days * DAY_MS
    await bob.catchUp()
    now -= days * DAY_MS
  }
  await alice.send(bob.target, message)
  await bob.sync()
  assert.deepEqual(bob.texts(), ['in flight'])
})

test('a server with a wrong clock, or without issue times, costs no key in flight', async () => {
  for (const wrong of [0, 5_000, 9e15, undefined]) {
    let now = Date.now()
    const { bob, alice } = await pair({ now: () => now })
    now += 60 * DAY_MS
    const { key } = await alice.claim(bob.target)
    const message = alice.encryptWith(bob.target, key, 'in flight')
    const rival = await Rival.of(bob)
    await rival.uploadOneTimeKeys(['signed_curve25519:0'])
    bob.rewriteAnswer = ({ type }, answer) => {
      if (type === 'keys_pool') {
        for (const issued of answer.body.algorithms.signed_curve25519.issued) issued.issued_ts = wrong
      }
      return answer
    }
    for (let days = 0; days < 3; days++) {
      await bob.catchUp()
      now += DAY_MS
    }
    await alice.send(bob.target, message)
    await bob.sync()
    assert.deepEqual(bob.texts(), ['in flight'], String(wrong))
  }
})

test('with a server without digests that always reports 0, every key that it may still issue is held', async () => {
  for (const level of ['bare', 'msc4162'] as const) {
    let now = Date.now()
    const user = `zero-${level}`
    const bob = await ManagerDevice.signIn(server.url, { user, deviceId: 'BOB', now: () => now })
    const alice = await Sender.signIn(server.url, `${user}-sender`)
    bob.level = level
    bob.rewriteSync = (answer) => ({ ...answer, device_one_time_keys_count: { signed_curve25519: 0 } })
    bob.rewriteAnswer = ({ type }, answer) =>
      type === 'keys_upload'
        ? { ...answer, body: { ...answer.body, one_time_key_counts: { signed_curve25519: 0 } } }
        : answer
    for (let hour = 0; hour < 72; hour++) {
      await bob.catchUp()
      await bob.assertSubset()
      now += HOUR_MS
    }
    const { key } = await alice.claim(bob.target)
    await alice.send(bob.target, alice.encryptWith(bob.target, key, level))
    await bob.sync()
    assert.deepEqual(bob.texts(), [level])
    const resets = bob.sent.filter(({ request }) => request.type === 'keys_reset')
    assert.equal(resets.length > 0, level === 'msc4162', 'a dropped key is withdrawn first')
    assert.ok(resets.length <= 30, `${resets.length} resets`)
  }
})

test('key IDs sort in upload order, even with the clock moved back, and a restored copy draws others', async () => {
  let now = Date.now()
  const { bob, alice } = await pair({ now: () => now })
  const copy = memoryStore()
  await copy.write(0, new Map((await bob.store.read()).records))
  for (let i = 0; i < 3; i++) {
    await alice.session.claimMany(bob.userId, bob.deviceId, 3)
    now -= DAY_MS
    await bob.catchUp()
  }
  const names = bob.uploads.flatMap(({ request }) =>
    Object.keys(JSON.parse(request.body ?? '{}').one_time_keys),
  )
  assert.equal(names.length, 59)
  assert.deepEqual(names.toSorted(), names)
  const restored = await ManagerDevice.on(bob.session, { store: copy, now: () => now })
  await restored.catchUp()
  await alice.session.claimMany(bob.userId, bob.deviceId, 3)
  await restored.catchUp()
  const known = new Set(names)
  const others = restored.uploads.flatMap(({ request }) =>
    Object.keys(JSON.parse(request.body ?? '{}').one_time_keys ?? {}),
  )
  assert.ok(others.length > 0)
  assert.ok(!others.some((name) => known.has(name)))
})

test('two processes on a file take turns, one is killed, and nothing is lost', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'latchkey-manager-'))
  const path = join(dir, 'store.sqlite')
  const stores = [fileStore(path), fileStore(path)] as const
  try {
    const bob = await ManagerDevice.ready(server.url, { user: 'filed', deviceId: 'BOB', store: stores[0] })
    const other = await ManagerDevice.on(bob.session, { store: stores[1] })
    const alice = await Sender.signIn(server.url, 'writer')
    for (const process of [bob, other, bob, other]) {
      for (const text of ['one', 'two']) {
        const { key } = await alice.claim(bob.target)
        await alice.send(bob.target, alice.encryptWith(bob.target, key, text))
      }
      await process.sync()
      await process.loseNextAnswer()
      await process.crash()
    }
    await Promise.all([bob.catchUp(), other.catchUp()])
    assert.equal(await bob.assertSubset(), 50)
    assert.equal(new Set([...bob.received, ...other.received].map(({ id }) => id)).size, 8)
    assert.deepEqual([...bob.failures, ...other.failures], [])
  } finally {
    for (const store of stores) await store.close()
    rmSync(dir, { recursive: true, force: true })
  }
})
