/** Syncs behind a guard: counts, messages that name keys, server rollbacks, and no writes without new information. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { waitForLongPoll } from '@latchkey/testing/long-poll.ts'
import { copyInPlace } from '@latchkey/testing/directory-snapshot.ts'
import { startTestServer } from '@latchkey/testing/test-server.ts'
import { preKeyContent } from '../support/guard/messages.ts'
import { ModelSdk, publicKey } from '../support/guard/model-sdk.ts'
import { copyOf, startScene, type Scene } from '../support/guard/scene.ts'

const server = await startTestServer()
after(() => server[Symbol.asyncDispose]())

test('a count older than the last upload is replaced, and every other byte of the answer stays', async () => {
  const held: string[] = []
  let hold = false
  const { sdk, emitted, claim } = await startScene(server.url, 'stale', {
    // Holds the answer from before the upload until after it: answers overtake each other.
    fetch: async (input, init) => {
      const response = await fetch(input, init)
      if (!hold || !String(input).includes('/sync')) return response
      const text = `${(await response.text()).slice(0, -1)},"x.large":12345678901234567890, "x.large" : 1 }`
      held.push(text)
      hold = false
      await sdk.upload()
      return new Response(text, { headers: { 'content-type': 'application/json', 'content-length': '1' } })
    },
  })
  await sdk.round()
  await claim(30)
  sdk.generate(30)
  hold = true
  const { body } = await sdk.sync()
  assert.equal(body.device_one_time_keys_count.signed_curve25519, 50)
  assert.match(held[0] ?? '', /"signed_curve25519":20/)
  assert.deepEqual(
    emitted('stale_count').map(({ received: old, used }) => [old, used]),
    [[20, 50]],
  )
  assert.equal(sdk.state.unpublished.size, 0, 'the SDK did not generate again')
})

test('only the count is spliced', async () => {
  let old = ''
  const { sdk, guard, claim } = await startScene(server.url, 'bytes', {
    fetch: async (input, init) => {
      if (old === '' || !String(input).includes('/sync')) return fetch(input, init)
      await sdk.upload()
      return new Response(old, { headers: { 'content-type': 'application/json', 'x-other': 'kept' } })
    },
  })
  await sdk.round()
  await claim(1)
  await sdk.round()
  const { epoch } = await sdk.session.ok('GET', '/unstable/dev.latchkey/keys/pool')
  const pool = `{"epoch":"${epoch}","version":1,"generation":0,"digest":{},"fallback":{}}`
  const count = '{"signed_curve25519": 7, "other":1}'
  old = `{ "n":12345678901234567890,"device_one_time_keys_count" : ${count} ,"dev.latchkey.key_pool":${pool},"e":{"device_one_time_keys_count":{}}}`
  sdk.generate(1)
  const url = `${sdk.session.baseUrl}/_matrix/client/v3/sync`
  const response = await guard(url, { headers: { authorization: `Bearer ${sdk.session.token}` } })
  assert.equal(response.headers.get('x-other'), 'kept')
  assert.equal(await response.text(), old.replace(count, '{"signed_curve25519":51,"other":1}'))
})

test('without a count in a sync the SDK gets the true one, asked at most once a minute', async () => {
  const clock = { now: 1_000_000 }
  const uploads: unknown[] = []
  const { sdk, claim } = await startScene(server.url, 'missing', {
    now: () => clock.now,
    fetch: async (input, init) => {
      if (String(input).endsWith('/keys/upload')) uploads.push(init?.body)
      const response = await fetch(input, init)
      if (!String(input).includes('/sync')) return response
      const {
        device_one_time_keys_count: _none,
        'dev.latchkey.key_pool': _pool,
        ...rest
      } = await response.json()
      return Response.json(rest)
    },
  })
  await sdk.round()
  assert.equal(uploads.length, 1)
  await claim(4)
  for (const _ of [1, 2, 3]) {
    const { body } = await sdk.sync()
    assert.equal(body.device_one_time_keys_count.signed_curve25519, 46)
    clock.now += 1_000
  }
  assert.deepEqual(uploads.slice(1), ['{}'])
  clock.now += 60_000
  await claim(6)
  assert.equal((await sdk.sync()).body.device_one_time_keys_count.signed_curve25519, 40)
})

test('a sync without new information writes nothing, and returns the same Response', async () => {
  const responses: Response[] = []
  const { sdk, guard, store } = await startScene(server.url, 'silent', {
    fetch: async (input, init) => {
      const response = await fetch(input, init)
      responses.push(response)
      return response
    },
  })
  await sdk.round()
  await sdk.sync()
  const generation = await store.generation()
  const url = `${sdk.session.baseUrl}/_matrix/client/v3/sync`
  const response = await guard(url, { headers: { authorization: `Bearer ${sdk.session.token}` } })
  assert.equal(response, responses.at(-1))
  assert.equal((await response.json()).device_one_time_keys_count.signed_curve25519, 50)
  assert.equal(await store.generation(), generation)
})

test('a long-poll that waited while keys changed is as new as its answer, not as old as its request', async () => {
  const scene = await startScene(server.url, 'waiting')
  const { sdk, claim, emitted } = scene
  const writer = await MatrixSession.signIn(server.url, 'waiting-writer', 'W')
  await sdk.round()
  await sdk.sync()
  const poll = sdk.session.call('GET', `/v3/sync?timeout=30000&since=${sdk.state.since}`)
  await waitForLongPoll(server, poll)
  sdk.generate(1)
  await sdk.upload()
  await claim(3)
  await name(scene, writer, publicKey())
  assert.equal((await poll).body.device_one_time_keys_count.signed_curve25519, 48)
  assert.deepEqual(emitted('stale_count'), [])
})

/** Sends the device a message that names a key. */
async function name(
  scene: Scene,
  sender: MatrixSession,
  oneTimeKey: string,
  baseKey?: string,
): Promise<void> {
  const { session, curve25519: ownKey } = scene.sdk
  const content = preKeyContent({ oneTimeKey, ownKey, ...(baseKey !== undefined && { baseKey }) })
  await sender.ok('PUT', `/v3/sendToDevice/m.room.encrypted/${publicKey().replaceAll('/', '_')}`, {
    messages: { [session.userId]: { [session.deviceId]: content } },
  })
}

test('a message that names an issued key marks it used; a second session is reported with both senders', async () => {
  const scene = await startScene(server.url, 'named')
  const { sdk, guard, emitted } = scene
  await sdk.round()
  const alice = await MatrixSession.signIn(server.url, 'named-alice', 'A')
  const mallory = await MatrixSession.signIn(server.url, 'named-mallory', 'M')
  const { key, name: keyName } = await alice.claim(sdk.session.userId, sdk.session.deviceId)
  await name(scene, alice, key)
  await sdk.round()
  const [used] = await guard.explain(key)
  assert.deepEqual([used?.name, used?.state], [keyName, 'used'])
  assert.deepEqual(emitted('key_seen_twice'), [])
  await name(scene, mallory, key)
  await sdk.round()
  assert.deepEqual(
    emitted('key_seen_twice').map(({ key: twice, senders }) => [twice, senders]),
    [[keyName, [alice.userId, mallory.userId]]],
  )
  assert.equal(await guard.reportUndecryptable(key), 'seen_twice')
  assert.deepEqual([emitted('drift'), await guard.history()], [[], []])
})

test('forged messages that name good keys, unknown keys or nonsense withdraw nothing', async () => {
  const scene = await startScene(server.url, 'forged')
  const { sdk, guard, emitted, claim } = scene
  await sdk.round()
  const mallory = await MatrixSession.signIn(server.url, 'forged-mallory', 'M')
  for (const key of [...[...sdk.state.privates].slice(0, 20), publicKey(), publicKey()]) {
    await name(scene, mallory, key)
  }
  await sdk.round()
  assert.deepEqual((await guard.status()).keys, { available: 50 })
  // Nothing happens later either: not when everything is read again, and not when keys are claimed and refilled.
  await claim(10)
  for (const _ of [1, 2, 3]) await sdk.round()
  const pool = await sdk.session.ok('GET', '/unstable/dev.latchkey/keys/pool')
  assert.equal(pool.generation, 0)
  assert.deepEqual([emitted('drift'), await guard.history(), await sdk.orphans()], [[], [], []])
  assert.equal(await guard.reportUndecryptable(publicKey()), 'unknown_key')
})

test('reportUndecryptable accepts the event, its JSON, the public key, or the log line', async () => {
  const { sdk, guard, emitted } = await startScene(server.url, 'report')
  await sdk.round()
  const [key = ''] = sdk.state.privates
  const event = {
    type: 'm.room.encrypted',
    sender: '@a:test.example',
    content: preKeyContent({ oneTimeKey: key, ownKey: sdk.curve25519 }),
  }
  const line = `Failed to create a new Olm session from a pre-key message: InboundCreation(MissingOneTimeKey("curve25519:${key}"))`
  for (const report of [event, JSON.stringify(event), key, line]) {
    assert.equal(await guard.reportUndecryptable(report), 'private_key_held')
  }
  assert.equal(await guard.reportUndecryptable('nothing to be found here'), 'malformed')
  assert.equal(emitted('undecryptable')[0]?.sender, '@a:test.example')
})

test('a message to a former identity of the device is explained: its key is lost', async () => {
  const scene = await startScene(server.url, 'former')
  const { sdk, guard, emitted } = scene
  await sdk.round()
  const writer = await MatrixSession.signIn(server.url, 'former-writer', 'W')
  const { key } = await writer.claim(sdk.session.userId, sdk.session.deviceId)
  const event = {
    type: 'm.room.encrypted',
    sender: writer.userId,
    content: preKeyContent({ oneTimeKey: key, ownKey: sdk.curve25519 }),
  }
  const wiped = new ModelSdk(sdk.session)
  await wiped.round()
  assert.equal(emitted('identity_changed').length, 1)
  assert.equal(await guard.reportUndecryptable(event), 'lost')
})

test('keys that a server restored from a backup offers again are withdrawn at the first sync', async () => {
  const dirs = ['data', 'backup'].map((kind) => mkdtempSync(join(tmpdir(), `latchkey-${kind}-`)))
  after(() => dirs.forEach((dir) => rmSync(dir, { recursive: true, force: true })))
  const [dataDir = '', backupDir = ''] = dirs
  let current = await startTestServer({ dataDir })
  after(() => current.close())
  const { url } = current
  const { sdk, claim, guard, emitted } = await startScene(url, 'restored', {
    fetch: (input, init) => fetch(String(input).replace(url, current.url), init),
  })
  await sdk.round()
  await current.close()
  copyInPlace(dataDir, backupDir)
  current = await startTestServer({ dataDir })
  await claim(12)
  await sdk.round()
  await sdk.sync()

  await current.close()
  copyInPlace(backupDir, dataDir)
  current = await startTestServer({ dataDir })
  const { body } = await sdk.session.call('GET', '/v3/sync?timeout=0')
  assert.equal(body.device_one_time_keys_count.signed_curve25519, 38)
  assert.deepEqual(
    emitted('healed').map(({ cause, detail }) => [cause, detail]),
    [['server_rollback', 'withdrew 12 of 12 keys']],
  )
  for (const _ of [1, 2]) await sdk.round()
  assert.deepEqual(await sdk.orphans(), [])
  assert.equal((await guard.history()).length, 1)
})

test('an unknown fallback key is reported once, with the reason why it cannot be healed', async () => {
  const { sdk, emitted, store, reopen } = await startScene(server.url, 'fallback')
  await sdk.round()
  const backup = { state: sdk.state, store: await copyOf(store) }
  await sdk.upload({ more: { fallback_keys: sdk.fallbackKey('AAAAAA') } })
  const restored = sdk.otherTab(reopen({ store: backup.store }))
  for (const _ of [1, 2, 3]) await restored.round()
  assert.deepEqual(
    emitted('drift').map(({ cause, keys }) => [cause, keys]),
    [['unknown_fallback_key', ['signed_curve25519:AAAAAA']]],
  )
  assert.match(emitted('not_healed')[0]?.detail ?? '', /fallback/)
})

test('in sliding sync counts are corrected in place, and a missing one means unchanged and stays missing', async () => {
  let answer = {}
  const { sdk, guard } = await startScene(server.url, 'sliding', {
    fetch: async (input, init) => {
      if (!String(input).includes('simplified')) return fetch(input, init)
      await sdk.upload()
      return Response.json(answer)
    },
  })
  await sdk.round()
  const { epoch } = await sdk.session.ok('GET', '/unstable/dev.latchkey/keys/pool')
  const slide = async (): Promise<unknown> => {
    const url = `${sdk.session.baseUrl}/_matrix/client/unstable/org.matrix.simplified_msc3575/sync`
    sdk.generate(1)
    const headers = { authorization: `Bearer ${sdk.session.token}` }
    return (await guard(url, { method: 'POST', headers, body: '{}' })).json()
  }
  const old = { 'dev.latchkey.key_pool': { epoch, version: 1, generation: 0, digest: {}, fallback: {} } }
  answer = { extensions: { e2ee: { device_one_time_keys_count: { signed_curve25519: 3 }, ...old } } }
  assert.deepEqual(await slide(), {
    extensions: { e2ee: { device_one_time_keys_count: { signed_curve25519: 51 }, ...old } },
  })
  answer = { extensions: { e2ee: { ...old } } }
  assert.deepEqual(await slide(), answer)
})
