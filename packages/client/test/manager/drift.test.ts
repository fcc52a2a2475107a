/** Drift between the server and the account: detection and healing. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, before, test } from 'node:test'
import { copyInPlace } from '@latchkey/testing/directory-snapshot.ts'
import { REFUSING, startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'
import { memoryStore, type Store, StoreError } from '../../src/index.ts'
import { ManagerDevice, PICKLE_KEY } from '../support/manager/device.ts'
import { Rival } from '../support/manager/rival.ts'
import { Sender } from '../support/manager/sender.ts'
import { RestorableServer, untilReachable } from '../support/manager/server.ts'

const HOUR_MS = 3_600_000

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

async function copyOf(store: Store): Promise<Store> {
  const copy = memoryStore()
  await copy.write(0, new Map((await store.read()).records))
  return copy
}

/** A sender writes a first message to the device, and the device receives it. */
async function expectDelivery(alice: Sender, bob: ManagerDevice, text: string): Promise<void> {
  const { key } = await alice.claim(bob.target)
  await alice.send(bob.target, alice.encryptWith(bob.target, key, text))
  await bob.sync()
  assert.equal(bob.texts().at(-1), text)
}

test('after the store was restored from an old copy, exactly the keys it does not know are withdrawn', async () => {
  const { bob, alice } = await pair()
  const old = await copyOf(bob.store)
  await alice.session.claimMany(bob.userId, bob.deviceId, 10)
  await bob.catchUp()
  const back = await ManagerDevice.on(bob.session, { store: old })
  await back.catchUp()
  assert.equal(await back.assertSubset(), 50)
  const [heal, ...more] = await back.manager.history()
  assert.equal(heal?.cause, 'unknown_keys')
  assert.equal(heal?.detail, 'withdrew 10 of 10 keys')
  assert.deepEqual(more, [])
  assert.deepEqual(back.eventTypes(), ['drift', 'healed'])
  await expectDelivery(alice, back, 'hello again')
})

test('mode "report" reports drift once and withdraws nothing; mode "off" compares nothing', async () => {
  for (const mode of ['report', 'off'] as const) {
    const { bob } = await pair()
    const rival = await Rival.of(bob)
    await rival.uploadOneTimeKeys(['signed_curve25519:ZZZ'])
    const watcher = await ManagerDevice.on(bob.session, { store: bob.store, mode })
    await watcher.catchUp()
    await watcher.catchUp()
    assert.deepEqual(watcher.eventTypes(), mode === 'off' ? [] : ['drift', 'not_healed'])
    assert.equal((await watcher.pool()).algorithms.signed_curve25519.count, 51)
    assert.ok(!watcher.sent.some(({ request }) => request.type === 'keys_reset'))
  }
})

test('heals observe their budget, and the rest is reported', async () => {
  let now = Date.now()
  const { bob } = await pair({ now: () => now, budget: { healsPerDay: 2 } })
  const rival = await Rival.of(bob)
  for (let i = 0; i < 4; i++) {
    await rival.uploadOneTimeKeys([`signed_curve25519:Z${i}`])
    await bob.catchUp()
    now += HOUR_MS
  }
  assert.equal((await bob.manager.history()).length, 2)
  assert.ok(bob.eventTypes().includes('not_healed'))
  now += 24 * HOUR_MS
  await bob.catchUp()
  assert.equal(await bob.assertSubset(), 50)
})

test('a reset with a lost answer is repeated, and one too late for its pool is decided again', async () => {
  let now = Date.now()
  const { bob, alice } = await pair({ now: () => now })
  const rival = await Rival.of(bob)
  await rival.uploadOneTimeKeys(['signed_curve25519:ZZZ'])
  await bob.sync()
  await bob.loseNextAnswer()
  await bob.crash()
  await bob.catchUp()
  assert.equal(await bob.assertSubset(), 50)
  assert.equal((await bob.manager.history()).length, 1)
  await rival.uploadOneTimeKeys(['signed_curve25519:ZZY'])
  now += HOUR_MS
  await bob.sync()
  for (;;) {
    const [request] = await bob.manager.outgoingRequests()
    assert.ok(request)
    // A claim between the pool read and the reset.
    if (request.type === 'keys_reset') await alice.claim(bob.target)
    await bob.send(request)
    if (request.type === 'keys_reset') break
  }
  assert.equal(bob.sent.at(-1)?.status, 409)
  await bob.catchUp()
  assert.equal(await bob.assertSubset(), 50)
})

test('of a server restored from its backup, keys it would issue again are withdrawn, and nothing is lost', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'latchkey-manager-'))
  const backup = mkdtempSync(join(tmpdir(), 'latchkey-manager-'))
  try {
    const first = await startTestServer({ ...REFUSING, dataDir })
    const bob = await ManagerDevice.ready(first.url, { user: 'bob', deviceId: 'BOB' })
    const alice = await Sender.signIn(first.url, 'alice')
    await first.close()
    copyInPlace(dataDir, backup)
    const second = await startTestServer({ ...REFUSING, dataDir, port: Number(new URL(first.url).port) })
    await untilReachable(second.url)
    const claimed = await alice.session.claimMany(bob.userId, bob.deviceId, 10)
    await bob.catchUp()
    await second.close()
    copyInPlace(backup, dataDir)
    await using third = await startTestServer({ ...REFUSING, dataDir, port: Number(new URL(first.url).port) })
    assert.equal(third.url, first.url)
    await untilReachable(third.url)
    await bob.catchUp()
    await bob.catchUp()
    assert.equal(await bob.assertSubset(), 50)
    const again = new Set(claimed.map(({ key }) => key))
    const next = await alice.session.claimMany(bob.userId, bob.deviceId, 10)
    assert.ok(!next.some(({ key }) => again.has(key)), 'no key is issued a second time')
    for (const { key } of [...claimed.slice(0, 2), ...next.slice(0, 2)]) {
      await alice.send(bob.target, alice.encryptWith(bob.target, key, key))
    }
    await bob.sync()
    assert.equal(bob.texts().length, 4)
    assert.ok((await bob.manager.history()).some(({ cause }) => cause === 'server_rollback'))
  } finally {
    for (const dir of [dataDir, backup]) rmSync(dir, { recursive: true, force: true })
  }
})

test('with the store wiped and the device ID kept, nothing is uploaded and the account is unusable', async () => {
  const { bob } = await pair()
  const fresh = await ManagerDevice.on(bob.session)
  await fresh.catchUp()
  assert.deepEqual(fresh.uploads, [])
  assert.deepEqual(fresh.eventTypes(), ['server', 'account_unusable'])
  assert.match(fresh.events[1]?.remedy ?? '', /log in as a new device/)
  assert.deepEqual(await fresh.manager.outgoingRequests(), [])
  await fresh.crash()
  assert.deepEqual(await fresh.manager.outgoingRequests(), [])
})

test("another device's store is refused", async () => {
  const { bob } = await pair()
  const other = await ManagerDevice.signIn(server.url, { user: 'other', deviceId: 'OTHER' })
  await assert.rejects(ManagerDevice.on(other.session, { store: bob.store }), (error) => {
    assert.ok(error instanceof StoreError)
    return error.reason === 'foreign'
  })
})

test('an imported account keeps its keys: the keys on the server are adopted, and work', async () => {
  const { bob, alice } = await pair()
  const { key } = await alice.claim(bob.target)
  const rival = await Rival.of(bob)
  const moved = await ManagerDevice.on(bob.session, { account: rival.account.pickle(PICKLE_KEY) })
  assert.deepEqual(moved.manager.identityKeys, bob.manager.identityKeys)
  await moved.catchUp()
  assert.equal(await moved.assertSubset(), 50)
  await alice.send(moved.target, alice.encryptWith(moved.target, key, 'claimed before'))
  await moved.sync()
  await expectDelivery(alice, moved, 'claimed after')
  assert.deepEqual(await moved.manager.history(), [])
  assert.ok(moved.eventTypes().includes('adopted'))
})

test('an imported account keeps its keys on servers without digests too, and new keys are added', async () => {
  for (const level of ['msc4162', 'bare'] as const) {
    const { bob, alice } = await pair()
    const { key } = await alice.claim(bob.target)
    const rival = await Rival.of(bob)
    const moved = await ManagerDevice.on(bob.session, { account: rival.account.pickle(PICKLE_KEY) })
    moved.level = level
    for (let syncs = 0; syncs < 3; syncs++) await moved.catchUp()
    assert.deepEqual(await moved.manager.history(), [], level)
    assert.ok(!moved.eventTypes().includes('not_healed'))
    assert.equal(await moved.assertSubset(), 50)
    assert.equal((await moved.manager.status()).held, 50)
    await alice.send(moved.target, alice.encryptWith(moved.target, key, 'claimed before'))
    await moved.catchUp()
    await expectDelivery(alice, moved, 'claimed after')
    assert.deepEqual(moved.texts(), ['claimed before', 'claimed after'])
    // Every earlier key is claimed, and every new one.
    await alice.session.claimMany(bob.userId, bob.deviceId, 60)
    await moved.catchUp()
    await moved.catchUp()
    await moved.assertSubset()
    await expectDelivery(alice, moved, 'on a new key')
    const { held, slots } = await moved.manager.status()
    assert.ok(held <= slots)
    assert.deepEqual(await moved.manager.history(), [])
  }
})

test('keys of an imported account that were issued before the import are kept too', async () => {
  const { bob, alice } = await pair()
  await alice.session.claimMany(bob.userId, bob.deviceId, 10)
  const rival = await Rival.of(bob)
  const moved = await ManagerDevice.on(bob.session, { account: rival.account.pickle(PICKLE_KEY) })
  await moved.catchUp()
  await moved.catchUp()
  assert.equal(await moved.assertSubset(), 50)
  assert.equal((await moved.manager.status()).held, 60)
  assert.equal((await moved.audit()).oneTimeKeys.length, 60)
})

test('on a server with digests a count of 0 without a digest leads to no heal', async () => {
  const { bob } = await pair()
  bob.rewriteSync = ({ 'dev.latchkey.key_pool': _pool, ...answer }) => ({
    ...answer,
    device_one_time_keys_count: { signed_curve25519: 0 },
  })
  await bob.catchUp()
  bob.rewriteSync = (answer) => answer
  await bob.catchUp()
  assert.deepEqual(await bob.manager.history(), [])
  await bob.assertSubset()
})

test('of an imported account with more keys on the server than it can hold, the oldest are withdrawn', async () => {
  const { bob, alice } = await pair()
  const rival = await Rival.of(bob)
  for (const batch of ['A', 'B', 'C']) {
    await rival.uploadOneTimeKeys(
      Array.from({ length: 40 }, (_, i) => `signed_curve25519:Z${batch}${i + 10}`),
    )
  }
  const moved = await ManagerDevice.on(bob.session, { account: rival.account.pickle(PICKLE_KEY) })
  await moved.catchUp()
  assert.equal(await moved.assertSubset(), 100)
  assert.equal((await moved.manager.history())[0]?.cause, 'private_keys_evicted')
  await expectDelivery(alice, moved, 'on a held key')
})

test('an upload that conflicts is compared, foreign keys are withdrawn, and the same upload succeeds', async () => {
  const { bob, alice } = await pair()
  await alice.session.claimMany(bob.userId, bob.deviceId, 5)
  await bob.sync()
  const [request] = await bob.manager.outgoingRequests()
  const names = Object.keys(JSON.parse(request?.body ?? '{}').one_time_keys)
  const rival = await Rival.of(bob)
  await rival.uploadOneTimeKeys(names.slice(0, 2))
  await bob.sendRequests()
  assert.equal(bob.uploads[1]?.status, 400)
  await bob.catchUp()
  await bob.catchUp()
  assert.equal(await bob.assertSubset(), 50)
  assert.equal(bob.uploads.at(-1)?.request.body, request?.body)
  await expectDelivery(alice, bob, 'after the conflict')
})

test('on plain MSC4162 a conflict ends with everything replaced, and the pool works again', async () => {
  const { bob, alice } = await pair()
  bob.level = 'msc4162'
  await bob.crash()
  await bob.catchUp()
  await alice.session.claimMany(bob.userId, bob.deviceId, 5)
  await bob.sync()
  const [request] = await bob.manager.outgoingRequests()
  const names = Object.keys(JSON.parse(request?.body ?? '{}').one_time_keys)
  const rival = await Rival.of(bob)
  await rival.uploadOneTimeKeys(names.slice(0, 2))
  await bob.sendRequests()
  await bob.catchUp()
  assert.ok((await bob.assertSubset()) > 0)
  assert.equal((await bob.manager.history())[0]?.cause, 'conflict')
  await expectDelivery(alice, bob, 'after the reset')
})

test('on plain MSC4162 a pool with more keys than were published is replaced', async () => {
  const { bob, alice } = await pair()
  bob.level = 'msc4162'
  await bob.crash()
  await bob.catchUp()
  const rival = await Rival.of(bob)
  await rival.uploadOneTimeKeys(['signed_curve25519:0', 'signed_curve25519:1'])
  await bob.catchUp()
  await bob.catchUp()
  assert.equal(await bob.assertSubset(), 50)
  await expectDelivery(alice, bob, 'after the reset')
})

test('on a bare server a conflict is reported, and the next keys get new IDs', async () => {
  const { bob, alice } = await pair()
  bob.level = 'bare'
  await bob.crash()
  await bob.catchUp()
  await alice.session.claimMany(bob.userId, bob.deviceId, 5)
  await bob.sync()
  const [request] = await bob.manager.outgoingRequests()
  const names = Object.keys(JSON.parse(request?.body ?? '{}').one_time_keys)
  const rival = await Rival.of(bob)
  await rival.uploadOneTimeKeys(names.slice(0, 2))
  await bob.sendRequests()
  assert.ok(bob.eventTypes().includes('not_healed'))
  await bob.catchUp()
  assert.equal(bob.uploads.at(-1)?.status, 200)
  assert.ok(!bob.sent.some((sent) => sent.request.type === 'keys_reset'))
})

test('an upload that is refused again after the comparison ends with everything replaced, in one request', async () => {
  const { bob, alice } = await pair()
  const [name] = Object.keys(JSON.parse(bob.uploads[0]?.request.body ?? '{}').one_time_keys)
  await alice.session.claimMany(bob.userId, bob.deviceId, 5)
  bob.rewriteAnswer = ({ type }, answer) => {
    if (type !== 'keys_upload' || bob.sent.some((sent) => sent.request.type === 'keys_reset')) return answer
    const error = `One time key ${name} already exists. Old key: {}`
    return { status: 400, body: { errcode: 'M_UNKNOWN', error } }
  }
  await bob.sync()
  await bob.sendRequests()
  const refused = bob.uploads.slice(1).filter(({ request }) => request.body === bob.uploads[1]?.request.body)
  assert.equal(refused.length, 2)
  const resets = bob.sent.filter(({ request }) => request.type === 'keys_reset')
  assert.equal(resets.length, 1)
  const body = JSON.parse(resets[0]?.request.body ?? '{}')
  assert.equal(body.all, true)
  assert.equal(Object.keys(body.fallback_keys).length, 1)
  assert.equal(await bob.assertSubset(), 50)
  assert.equal((await bob.manager.history())[0]?.cause, 'conflict')
  await expectDelivery(alice, bob, 'after the replacement')
})

test('a server that refuses every upload is asked less and less often, and no private half is lost', async () => {
  let now = Date.now()
  const start = now
  const { bob, alice } = await pair({ now: () => now })
  await alice.session.claimMany(bob.userId, bob.deviceId, 5)
  bob.rewriteAnswer = ({ type }, answer) =>
    // A proxy that stores an upload although it answers with a refusal.
    type === 'keys_upload' ? { status: 400, body: { errcode: 'M_UNKNOWN', error: 'no' } } : answer
  while (now < start + HOUR_MS) {
    await bob.catchUp()
    await bob.assertSubset()
    now += 10_000
  }
  assert.ok(bob.uploads.length < 30, `${bob.uploads.length} uploads in an hour`)
  bob.rewriteAnswer = (_request, answer) => answer
  now += HOUR_MS
  for (let i = 0; i < 3; i++) await bob.catchUp()
  assert.equal(await bob.assertSubset(), 50)
})

test('in a new epoch of the server an upload in progress is dropped, and the pool is read instead', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'latchkey-manager-'))
  try {
    const first = await startTestServer({ ...REFUSING, dataDir })
    const port = Number(new URL(first.url).port)
    const bob = await ManagerDevice.ready(first.url, { user: 'bob', deviceId: 'BOB' })
    const alice = await Sender.signIn(first.url, 'alice')
    await alice.session.claimMany(bob.userId, bob.deviceId, 10)
    await bob.sync()
    await bob.loseNextAnswer()
    const dropped = bob.uploads[1]?.request.body
    await first.close()
    const db = new DatabaseSync(join(dataDir, 'latchkey.db'))
    db.exec("update meta set value = 'raised' where key = 'epoch'")
    db.close()
    await using second = await startTestServer({ ...REFUSING, dataDir, port })
    await untilReachable(second.url)
    // The server's fence takes the epoch as proof that its database was rolled back, and purges the pools.
    await bob.catchUp()
    await bob.catchUp()
    // libolm holds a hundred keys, and any of the sixty may be in flight in a message.
    assert.equal(await bob.assertSubset(), 40)
    assert.ok(!bob.uploads.slice(2).some(({ request }) => request.body === dropped))
    await expectDelivery(alice, bob, 'in the new epoch')
  } finally {
    rmSync(dataDir, { recursive: true, force: true })
  }
})

test('records copied to a new store, which counts from zero, accept a new epoch', async () => {
  await using own = await RestorableServer.start()
  const bob = await ManagerDevice.ready(own.url, { user: 'bob', deviceId: 'BOB' })
  const alice = await Sender.signIn(own.url, 'alice')
  for (let i = 0; i < 5; i++) {
    await alice.session.claimMany(bob.userId, bob.deviceId, 1)
    await bob.catchUp()
  }
  await own.raiseEpoch()
  const moved = await ManagerDevice.on(bob.session, { store: await copyOf(bob.store) })
  await moved.catchUp()
  await moved.catchUp()
  // Purged keys that may be in flight occupy the rest of the hundred slots.
  assert.equal(await moved.assertSubset(), 45)
  await expectDelivery(alice, moved, 'in the new store')
})
