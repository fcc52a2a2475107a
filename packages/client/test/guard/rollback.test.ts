/** The three kinds of rollback, and changes of the server and of the identity. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { memoryStore } from '@latchkey/client'
import { REFUSING, startTestServer } from '@latchkey/testing/test-server.ts'
import { ModelSdk } from '../support/guard/model-sdk.ts'
import { copyOf, startScene } from '../support/guard/scene.ts'

const server = await startTestServer(REFUSING)
after(() => server[Symbol.asyncDispose]())

test('after a rollback of SDK store and ledger, exactly the unknown keys are withdrawn within one sync', async () => {
  const { sdk, emitted, store, claim, reopen } = await startScene(server.url, 'joint')
  await sdk.round()
  const backup = { state: sdk.state, store: await copyOf(store) }
  await claim(30)
  await sdk.round()
  assert.equal((await sdk.orphans()).length, 0)

  const guard = reopen({ store: backup.store })
  const restored = sdk.otherTab(guard)
  restored.restore(backup.state)
  assert.equal((await restored.orphans()).length, 30)
  const answer = await restored.sync()
  assert.equal(answer.body.device_one_time_keys_count.signed_curve25519, 20, 'the count after the heal')
  assert.deepEqual(await restored.orphans(), [])
  await restored.upload()
  assert.deepEqual(
    restored.uploads.map(({ status, body }) => [status, body.one_time_key_counts.signed_curve25519]),
    [[200, 50]],
  )
  assert.deepEqual(await restored.orphans(), [])
  assert.deepEqual(
    emitted('drift').map(({ cause, keys }) => [cause, keys.length]),
    [['unknown_keys', 30]],
  )
  assert.deepEqual(
    (await guard.history()).map(({ cause, ok, detail }) => ({ cause, ok, detail })),
    [{ cause: 'unknown_keys', ok: true, detail: 'withdrew 30 of 30 keys' }],
  )
})

test('after a rollback of the SDK store alone, reusing an ID withdraws every key since that ID', async () => {
  const { sdk, emitted, claim, guard } = await startScene(server.url, 'alone')
  await sdk.round()
  const backup = sdk.state
  await claim(10)
  await sdk.round()
  await claim(10)
  await sdk.round()
  sdk.restore(backup)
  await sdk.sync()
  assert.equal((await sdk.orphans()).length, 20)
  assert.deepEqual(emitted('drift'), [])

  await claim(1)
  await sdk.round()
  assert.equal(sdk.uploads.at(-1)?.status, 200)
  assert.deepEqual(await sdk.orphans(), [])
  assert.deepEqual(
    emitted('healed').map(({ cause, detail }) => [cause, detail]),
    [['sdk_rollback', 'withdrew 20 of 20 keys']],
  )
  // The next uploads use IDs of the withdrawn keys; that is expected, and their good keys stay.
  for (const _ of [1, 2, 3]) {
    await sdk.round()
    await claim(7)
  }
  await sdk.round()
  assert.deepEqual(await sdk.orphans(), [])
  assert.equal((await guard.history()).length, 1)
  assert.deepEqual(emitted('two_writers'), [])
})

test('after a rollback of the SDK store with all keys issued, nothing is withdrawn, losses are known', async () => {
  const { sdk, claim, guard, emitted } = await startScene(server.url, 'alone-issued')
  await sdk.round()
  const backup = sdk.state
  await claim(10)
  await sdk.round()
  const keys = [...sdk.state.privates].slice(50)
  await claim(50)
  sdk.restore(backup)
  await sdk.round()
  assert.equal(sdk.uploads.at(-1)?.status, 200)
  assert.deepEqual(await sdk.orphans(), [])
  assert.deepEqual(emitted('healed'), [])
  assert.deepEqual(
    await Promise.all(keys.map((key) => guard.reportUndecryptable(key))),
    keys.map(() => 'lost'),
  )
})

test('with the ledger lost, the pool is adopted, and nothing is withdrawn as unknown', async () => {
  const { sdk, reopen, claim, emitted } = await startScene(server.url, 'adopt')
  await sdk.round()
  await claim(5)
  await sdk.round()
  const guard = reopen({ store: memoryStore() })
  const again = sdk.otherTab(guard)
  for (const _ of [1, 2, 3]) {
    await again.round()
    await claim(2)
  }
  await again.round()
  assert.deepEqual(
    emitted('adopted').map(({ count }) => count),
    [50],
  )
  assert.deepEqual(await guard.history(), [])
  assert.deepEqual(await again.orphans(), [])
  assert.equal((await guard.status()).counts['signed_curve25519'], 50)
})

test('adopted keys are withdrawn when their IDs are reused', async () => {
  const { sdk, reopen, claim, emitted } = await startScene(server.url, 'adopt-reused')
  await sdk.round()
  const backup = sdk.state
  await claim(20)
  await sdk.round()
  const guard = reopen({ store: memoryStore() })
  const restored = sdk.otherTab(guard)
  restored.restore(backup)
  await restored.round()
  assert.equal((await restored.orphans()).length, 20)
  await claim(1)
  await restored.round()
  assert.deepEqual(await restored.orphans(), [])
  assert.deepEqual(
    emitted('healed').map(({ cause }) => cause),
    ['sdk_rollback'],
  )
})

test('a wiped crypto store means a new identity: the server purges, every former key is lost', async () => {
  const { sdk, guard, emitted, claim } = await startScene(server.url, 'wiped')
  await sdk.round()
  const former = [...sdk.state.privates]
  await claim(3)
  const fresh = new ModelSdk(sdk.session, { fetch: guard })
  await fresh.round()
  await fresh.round()
  assert.deepEqual(
    emitted('identity_changed').map(({ former: from, current }) => [from, current]),
    [[sdk.curve25519, fresh.curve25519]],
  )
  assert.deepEqual(await fresh.orphans(), [])
  assert.deepEqual(await guard.history(), [])
  assert.equal(await guard.reportUndecryptable(former[0] ?? ''), 'lost')
  await claim(20)
  await fresh.round()
  assert.deepEqual(await fresh.orphans(), [])
  assert.deepEqual(await guard.history(), [])
})

test('reused IDs of keys that never reached the server also reveal a rollback', async () => {
  const { sdk, claim, emitted } = await startScene(server.url, 'unsent-ids')
  await sdk.round()
  sdk.generate(50)
  await sdk.upload()
  const backup = sdk.state
  sdk.generate(50)
  await sdk.upload()
  assert.equal(emitted('upload_limited')[0]?.keys, 50)
  await claim(60)
  await sdk.round()
  sdk.restore(backup)
  await claim(1)
  await sdk.round()
  assert.deepEqual(await sdk.orphans(), [])
  assert.deepEqual(
    emitted('drift').map(({ cause, keys }) => [cause, keys.length]),
    [['sdk_rollback', 10]],
  )
  for (const _ of [1, 2, 3]) {
    await claim(7)
    await sdk.round()
  }
  assert.deepEqual(await sdk.orphans(), [])
  assert.equal(emitted('healed').length, 1)
})

test("a new identity's first keys are not withheld because of the keys of the former one", async () => {
  const { sdk, guard, emitted } = await startScene(server.url, 'new-identity', { maxPublished: 60 })
  await sdk.round()
  const fresh = new ModelSdk(sdk.session, { fetch: guard })
  fresh.generate(50)
  await fresh.upload()
  assert.deepEqual(emitted('upload_limited'), [])
  assert.equal(fresh.uploads[0]?.body.one_time_key_counts.signed_curve25519, 50)
  assert.deepEqual(await fresh.orphans(), [])
})
