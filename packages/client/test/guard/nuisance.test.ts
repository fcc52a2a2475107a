/** Other users and servers that try to keep a guard busy: the effects are bounded. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { startTestServer } from '@latchkey/testing/test-server.ts'
import { preKeyContent } from '../support/guard/messages.ts'
import { ModelSdk } from '../support/guard/model-sdk.ts'
import { startScene } from '../support/guard/scene.ts'

const server = await startTestServer()
after(() => server[Symbol.asyncDispose]())

test('sixty forged sessions that name one key are reported once', async () => {
  const { sdk, emitted } = await startScene(server.url, 'sixty')
  await sdk.round()
  const mallory = await MatrixSession.signIn(server.url, 'sixty-mallory', 'M')
  const { key } = await mallory.claim(sdk.session.userId, sdk.session.deviceId)
  for (let i = 0; i < 60; i++) {
    const content = preKeyContent({ oneTimeKey: key, ownKey: sdk.curve25519 })
    await mallory.ok('PUT', `/v3/sendToDevice/m.room.encrypted/${i}`, {
      messages: { [sdk.session.userId]: { [sdk.session.deviceId]: content } },
    })
  }
  await sdk.round()
  assert.equal(emitted('key_seen_twice').length, 1)
})

test('a server that does not identify the token owner is asked once a minute', async () => {
  const clock = { now: Date.now() }
  let isDown = true
  let asked = 0
  const { sdk, guard, emitted } = await startScene(server.url, 'whose', {
    now: () => clock.now,
    fetch: async (input, init) => {
      if (!String(input).endsWith('/account/whoami')) return fetch(input, init)
      asked++
      return isDown ? Response.json({ errcode: 'M_LIMIT_EXCEEDED' }, { status: 429 }) : fetch(input, init)
    },
  })
  await sdk.round()
  for (let i = 0; i < 5; i++) await sdk.sync()
  assert.equal(asked, 1)
  isDown = false
  clock.now += 60_000
  await sdk.round()
  assert.equal(asked, 2)
  // Both requests at the start wait for the one answer, so another device cannot pass in the meantime.
  const stranger = new ModelSdk(await MatrixSession.signIn(server.url, 'whose-other', 'PHONE'), {
    fetch: guard,
  })
  const { keys } = await guard.status()
  stranger.generate(5)
  await Promise.all([stranger.sync(), stranger.upload()])
  // Nor after its first refusal.
  stranger.generate(5)
  await stranger.upload()
  assert.deepEqual(
    stranger.uploads.map(({ status }) => status),
    [200, 200],
  )
  assert.deepEqual((await guard.status()).keys, keys)
  assert.equal(emitted('unguarded').length, 1)
})

test('a server that invents a fallback key at every sync fills neither the store nor the log', async () => {
  let invented = 0
  const { sdk, store, emitted } = await startScene(server.url, 'inventor', {
    fetch: async (input, init) => {
      const response = await fetch(input, init)
      const path = String(input)
      if (!path.includes('/sync') && !path.includes('/keys/pool')) return response
      if (path.includes('/sync')) invented++
      const body = await response.json()
      const pool = body['dev.latchkey.key_pool'] ?? body
      pool.version += invented
      if (pool.fallback !== undefined) pool.fallback = { signed_curve25519: `hash${invented}` }
      if (pool.algorithms?.signed_curve25519 !== undefined) {
        const fallback = { key_id: 'AAAA', key_hash: `hash${invented}`, used: false }
        pool.algorithms.signed_curve25519.fallback = fallback
      }
      return Response.json(body)
    },
  })
  await sdk.round()
  for (let i = 0; i < 80; i++) await sdk.sync()
  const { records } = await store.read()
  const fallbacks = [...records.keys()].filter((key) => key.startsWith('fallback/'))
  assert.ok(fallbacks.length <= 51, `${fallbacks.length} records of fallback keys`)
  assert.equal(emitted('drift').length, 1)
  assert.equal(emitted('not_healed').length, 1)
})

test('a refusal that names a thousand keys leads to an event with fifty', async () => {
  const { sdk, emitted } = await startScene(server.url, 'thousand', {
    mode: 'report',
    fetch: async (input, init) => {
      if (!String(input).endsWith('/keys/upload')) return fetch(input, init)
      const names = Array.from({ length: 1_000 }, (_, i) => [`signed_curve25519:${i}`, {}])
      return Response.json({ 'dev.latchkey.conflicts': Object.fromEntries(names) }, { status: 400 })
    },
  })
  sdk.generate(5)
  await sdk.upload()
  assert.deepEqual(
    emitted('drift').map(({ keys }) => keys.length),
    [50],
  )
})
