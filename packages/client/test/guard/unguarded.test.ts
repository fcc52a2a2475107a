/** Uploads that pass while the guard cannot work, and how the ledger records them afterwards. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { memoryStore } from '@latchkey/client'
import type { Fetch } from '@latchkey/testing/matrix-session.ts'
import { REFUSING, startTestServer } from '@latchkey/testing/test-server.ts'
import { ModelSdk } from '../support/guard/model-sdk.ts'
import { breakable, copyOf, startScene } from '../support/guard/scene.ts'
import { hidingProxy } from '../support/guard/proxy.ts'

const server = await startTestServer(REFUSING)
after(() => server[Symbol.asyncDispose]())
const bare = await hidingProxy(server.url, 'bare')
after(() => bare[Symbol.asyncDispose]())

for (const url of [server.url, bare.url]) {
  const level = url === bare.url ? 'bare' : 'latchkey'

  test(`keys that passed while the store failed belong to the device: none is withdrawn (${level})`, async () => {
    const broken = { is: false }
    const store = breakable(memoryStore(), broken)
    const { sdk, claim, guard, emitted } = await startScene(url, `passed-${level}`, { store })
    await sdk.round()
    await claim(20)
    await sdk.sync()
    broken.is = true
    await sdk.upload()
    assert.equal(sdk.uploads.at(-1)?.status, 200)
    assert.equal(emitted('unguarded').length, 1)
    broken.is = false

    await sdk.round()
    assert.deepEqual([emitted('drift'), await guard.history()], [[], []])
    assert.equal((await guard.status()).counts['signed_curve25519'], 50)
    const [passed = ''] = [...sdk.state.privates].slice(-1)
    assert.deepEqual(
      (await guard.explain(passed)).map(({ state, verdict }) => [state, verdict]),
      [['available', 'private_key_held']],
    )
  })
}

test('an unguarded upload that reveals a rollback of the SDK store is followed by the withdrawal', async () => {
  const broken = { is: false }
  const clock = { now: Date.now() }
  const store = breakable(memoryStore(), broken)
  const { sdk, claim } = await startScene(server.url, 'passed-back', { store, now: () => clock.now })
  await sdk.round()
  const backup = sdk.state
  await claim(30)
  await sdk.round()
  await claim(20)
  sdk.restore(backup)
  await sdk.sync()
  broken.is = true
  await sdk.upload()
  broken.is = false
  for (let i = 0; i < 3; i++) {
    clock.now += 600_000
    await sdk.round()
  }
  assert.deepEqual(await sdk.orphans(), [])
})

test('an upload that hangs in one tab does not block the other tabs, whose unguarded keys are recorded', async () => {
  const hung = Promise.withResolvers<Response>()
  let hang = true
  const net: Fetch = (input, init) => {
    if (!hang || !String(input).endsWith('/keys/upload')) return fetch(input, init)
    hang = false
    return hung.promise
  }
  const { sdk, reopen, emitted, guard } = await startScene(server.url, 'hung', { fetch: net, timeoutMs: 200 })
  await sdk.sync()
  const first = sdk.upload().catch((error: unknown) => error)
  const other = new ModelSdk(sdk.session, { fetch: reopen() })
  other.generate(50)
  await other.upload()
  assert.equal(other.uploads[0]?.status, 200)
  assert.match(emitted('unguarded')[0]?.error ?? '', /has held the store's lock for 0.2 s/)
  hung.reject(new TypeError('fetch failed'))
  await first

  await other.sync()
  assert.deepEqual([emitted('drift'), await other.orphans()], [[], []])
  assert.equal((await guard.status()).counts['signed_curve25519'], 50)
})

test('when the pool cannot be read, the first upload is recorded and passes, and the failure is reported', async () => {
  const pool = { isDown: true, reads: 0 }
  const clock = { now: Date.now() }
  const { sdk, guard, emitted, claim, store, reopen } = await startScene(server.url, 'no-pool', {
    now: () => clock.now,
    fetch: async (input, init) => {
      if (!String(input).includes('/keys/pool')) return fetch(input, init)
      pool.reads++
      if (pool.isDown) throw new TypeError('fetch failed')
      return fetch(input, init)
    },
  })
  sdk.generate(50)
  await sdk.upload()
  assert.deepEqual((await guard.status()).keys, { available: 50 })
  assert.deepEqual(
    emitted('pool_unreadable').map(({ error }) => error),
    ['fetch failed'],
  )
  // A pool that could not be read is not read again for a minute.
  for (const _ of [1, 2, 3]) await sdk.round()
  assert.equal(pool.reads, 2)
  pool.isDown = false
  clock.now += 60_000
  await sdk.round()
  assert.deepEqual([emitted('adopted'), emitted('unguarded'), emitted('drift')], [[], [], []])

  const backup = { state: sdk.state, store: await copyOf(store) }
  await claim(5)
  await sdk.round()
  const restored = sdk.otherTab(reopen({ store: backup.store }))
  restored.restore(backup.state)
  pool.isDown = true
  await restored.sync()
  assert.deepEqual(emitted('unguarded'), [])
  pool.isDown = false
  clock.now += 60_000
  await restored.sync()
  assert.deepEqual(await restored.orphans(), [])
})
