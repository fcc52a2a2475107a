/** Unmodified SDKs behind a guard: `fetchFn: guardFetch(fetch, { store })` and nothing else. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { createClient as createFloodingClient } from 'matrix-js-sdk-flooding/lib/matrix.js'
import { logger as floodingLogger } from 'matrix-js-sdk-flooding/lib/logger.js'
import { JsSdkClient, type JsSdkOptions, silence } from '@latchkey/testing/js-sdk-client.ts'
import { OlmDevice } from '@latchkey/testing/olm-device.ts'
import { REFUSING, startTestServer } from '@latchkey/testing/test-server.ts'
import { type ClientEvent, type Guard, guardFetch, memoryStore, type Store } from '@latchkey/client'
import { copyOf } from '../support/guard/scene.ts'

const server = await startTestServer(REFUSING)
after(() => server[Symbol.asyncDispose]())

function guarded(store: Store = memoryStore()): { guard: Guard; events: ClientEvent[] } {
  const events: ClientEvent[] = []
  return { guard: guardFetch(fetch, { store, onEvent: (event) => events.push(event) }), events }
}

function typesOf(events: readonly ClientEvent[]): string[] {
  return events.map(({ type }) => type)
}

test('matrix-js-sdk behind a guard works as without one, and no problem is reported', async () => {
  const { guard, events } = guarded()
  using alice = await JsSdkClient.start(server.url, 'sdk-alice', 'SDK', { fetch: guard })
  using bob = await OlmDevice.ready(server.url, { user: 'sdk-bob', deviceId: 'PHONE' })
  const claimed = await bob.write(alice, 'hello')
  await alice.until('the message', () => alice.received.length === 1)
  await alice.until('the refill', () => alice.uploads.length === 2)
  assert.deepEqual(alice.uploads.at(-1)?.body.one_time_key_counts, { signed_curve25519: 50 })
  const [used] = await guard.explain(claimed?.key ?? '')
  assert.equal(used?.state, 'used')
  assert.deepEqual(typesOf(events), ['server'])
  assert.deepEqual(await guard.history(), [])
})

test('matrix-js-sdk 42.3.0 uploads 50 keys at every sync; behind a guard the pool stays at 100', async () => {
  const { guard, events } = guarded()
  silence(floodingLogger)
  const createClient = createFloodingClient as unknown as NonNullable<JsSdkOptions['createClient']>
  using alice = await JsSdkClient.start(server.url, 'flood-alice', 'SDK', { fetch: guard, createClient })
  using bob = await OlmDevice.ready(server.url, { user: 'flood-bob', deviceId: 'PHONE' })
  for (let i = 1; i <= 6; i++) {
    await bob.write(alice, `nudge ${i}`)
    await alice.until(`message ${i}`, () => alice.received.length === i)
  }
  await alice.until('uploads', () => alice.uploads.length >= 4)
  assert.ok(alice.uploads.every(({ status }) => status === 200))
  const pool = await alice.session.ok('GET', '/unstable/dev.latchkey/keys/pool')
  assert.ok(pool.algorithms.signed_curve25519.available.length <= 100)
  assert.ok(pool.algorithms.signed_curve25519.fallback)
  assert.equal(events.filter(({ type }) => type === 'upload_limited').length, 1)
  assert.deepEqual(
    events.filter(({ type }) => type === 'unguarded' || type === 'not_healed'),
    [],
  )
})

for (const what of ['the SDK alone', 'SDK and ledger together'] as const) {
  test(`a phone restored from a backup, ${what}, is never refused, and can be read again after one sync`, async () => {
    const user = `phone-${what.replaceAll(' ', '-').toLowerCase()}`
    const store = memoryStore()
    const first = guarded(store)
    using crowd = await OlmDevice.ready(server.url, { user: `${user}-crowd`, deviceId: 'PHONE' })
    const net = { fetch: first.guard }
    using alice = await OlmDevice.signIn(server.url, {
      user,
      deviceId: 'PHONE',
      storeName: user,
      fetch: (input, init) => net.fetch(input as string, init),
    })
    await alice.catchUp()
    const backup = { phone: await alice.backUp(), store: await copyOf(store) }
    await crowd.session.claimMany(alice.userId, alice.deviceId, 30)
    await alice.catchUp()
    await alice.restoreFrom(backup.phone)
    let { guard, events } = first
    if (what !== 'the SDK alone') ({ guard, events } = guarded(backup.store))
    net.fetch = guard
    // A rollback of the SDK alone is detected when it next publishes.
    await crowd.session.claimMany(alice.userId, alice.deviceId, 1)
    await alice.catchUp()
    assert.deepEqual(new Set(alice.uploads.map(({ status }) => status)), new Set([200]))
    assert.deepEqual(alice.lastUpload.body.one_time_key_counts, { signed_curve25519: 50 })

    for (let i = 0; i < 3; i++) {
      using sender = await OlmDevice.ready(server.url, { user: `${user}-${i}`, deviceId: 'PHONE' })
      await sender.write(alice, `message ${i}`)
    }
    await alice.catchUp()
    assert.deepEqual(
      alice.received.map(({ text }) => text),
      ['message 0', 'message 1', 'message 2'],
    )
    assert.deepEqual(alice.undecryptable, [])
    assert.equal((await guard.history()).length, 1)
    assert.ok(events.some(({ type }) => type === 'healed'))
  })
}
