/** Requests that a guard leaves unchanged, and its behaviour when it cannot work. */
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { after, test } from 'node:test'
import { guardFetch, memoryStore } from '@latchkey/client'
import { MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { startTestServer } from '@latchkey/testing/test-server.ts'
import { ModelSdk } from '../support/guard/model-sdk.ts'
import { breakable, startScene } from '../support/guard/scene.ts'

const server = await startTestServer()
after(() => server[Symbol.asyncDispose]())

test('other requests are sent with the same arguments, and their Response is unchanged', async () => {
  const seen: unknown[][] = []
  const answer = new Response('{}')
  const guard = guardFetch(
    async (...args) => {
      seen.push(args)
      return answer
    },
    { store: memoryStore() },
  )
  const base = 'https://matrix.example/_matrix/client'
  const auth = { headers: { authorization: 'Bearer t' } }
  const calls: Parameters<typeof fetch>[] = [
    [`${base}/v3/account/whoami`],
    [`${base}/v3/keys/claim`, { ...auth, method: 'POST', body: '{}' }],
    [`${base}/v3/keys/query`, { ...auth, method: 'POST', body: '{}' }],
    [`${base}/v3/sync`],
    [`${base}/v3/keys/upload`, { ...auth, method: 'GET' }],
    [`${base}/v3/keys/upload?user_id=@bot:x`, { ...auth, method: 'POST', body: '{}' }],
    [new URL('https://elsewhere.example/sync'), auth],
    [new Request('https://elsewhere.example/keys/upload', { ...auth, method: 'POST', body: 'x' })],
    ['not a url at all'],
  ]
  for (const args of calls) assert.equal(await guard(...args), answer)
  assert.equal(seen.length, calls.length)
  for (const [i, args] of calls.entries()) {
    assert.equal(seen[i]?.length, args.length)
    for (const [j, arg] of args.entries()) assert.equal(seen[i]?.[j], arg)
  }
})

test('a body that is streamed in both directions passes as a stream', async () => {
  const echo = createServer((request, response) => request.pipe(response))
  echo.listen(0)
  after(() => echo.close())
  await once(echo, 'listening')
  const { port } = echo.address() as AddressInfo
  const guard = guardFetch(fetch, { store: memoryStore() })
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>()
  const writer = writable.getWriter()
  const init = { method: 'POST', body: readable, duplex: 'half' } as RequestInit
  const pending = guard(`http://127.0.0.1:${port}/_matrix/media/v3/upload`, init)
  await writer.write(new TextEncoder().encode('first'))
  const response = await pending
  const reader = response.body?.getReader()
  assert.equal(new TextDecoder().decode((await reader?.read())?.value), 'first')
  await writer.write(new TextEncoder().encode('second'))
  assert.equal(new TextDecoder().decode((await reader?.read())?.value), 'second')
  await writer.close()
  assert.equal((await reader?.read())?.done, true)
})

test('an abort signal aborts a waiting sync, a waiting upload, and any other request', async () => {
  const silent = createServer(() => undefined)
  silent.listen(0)
  await once(silent, 'listening')
  after(() => silent.close() && silent.closeAllConnections())
  const { port } = silent.address() as AddressInfo
  const guard = guardFetch(fetch, { store: memoryStore() })
  for (const [method, path] of [
    ['GET', 'v3/sync'],
    ['POST', 'v3/keys/upload'],
    ['GET', 'v3/other'],
  ]) {
    const abort = new AbortController()
    const pending = guard(`http://127.0.0.1:${port}/_matrix/client/${path}`, {
      method: method ?? '',
      headers: { authorization: 'Bearer t' },
      signal: abort.signal,
      ...(method === 'POST' && { body: '{}' }),
    })
    const reason = new Error('no longer wanted')
    abort.abort(reason)
    await assert.rejects(pending, (error) => error === reason)
  }
})

test('an upload is recognised in any form: URL, Request, bytes, a stream, the token in the query', async () => {
  const session = await MatrixSession.signIn(server.url, 'forms', 'PHONE')
  const guard = guardFetch(fetch, { store: memoryStore() })
  const sdk = new ModelSdk(session)
  const url = `${server.url}/_matrix/client/r0/keys/upload`
  const headers = { authorization: `Bearer ${session.token}`, 'content-type': 'application/json' }
  const bytes = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text)
  const forms: ((body: string) => Parameters<typeof fetch>)[] = [
    (body) => [new URL(url), { method: 'POST', headers, body }],
    (body) => [new Request(url, { method: 'POST', headers, body })],
    (body) => [url, { method: 'post', headers, body: bytes(body) }],
    (body) => [
      url,
      { method: 'POST', headers, body: new Blob([body]).stream(), duplex: 'half' } as RequestInit,
    ],
    (body) => [`${url}?access_token=${session.token}`, { method: 'POST', body }],
  ]
  for (const [i, form] of forms.entries()) {
    sdk.generate(2)
    const keys = Object.fromEntries(Object.entries(sdk.pendingBody().one_time_keys).slice(-2))
    const response = await guard(...form(JSON.stringify({ one_time_keys: keys })))
    assert.equal(response.status, 200)
    assert.deepEqual((await response.json()).one_time_key_counts, { signed_curve25519: 2 * (i + 1) })
    assert.equal((await guard.status()).keys.available, 2 * (i + 1))
  }
})

test('when the store fails, traffic continues, and the ledger is complete once the store works', async () => {
  const broken = { is: false }
  const { sdk, emitted, guard, claim } = await startScene(server.url, 'broken', {
    store: breakable(memoryStore(), broken),
  })
  await sdk.round()
  broken.is = true
  await claim(3)
  await sdk.round()
  assert.equal(sdk.uploads.at(-1)?.status, 200)
  assert.deepEqual(
    emitted('unguarded').map(({ error }) => error),
    ['the disk is on fire'],
  )
  await assert.rejects(guard.status(), /the disk is on fire/)
  broken.is = false
  await sdk.round()
  await sdk.round()
  const { keys, counts } = await guard.status()
  assert.deepEqual([keys.issued, counts], [3, { signed_curve25519: 50 }])
  assert.deepEqual(await sdk.orphans(), [])
})

test('a corrupted store never becomes an empty one', async () => {
  const store = memoryStore()
  const { sdk } = await startScene(server.url, 'corrupted', { store })
  await sdk.round()
  await store.write(await store.generation(), new Map([['ledger/head', '{"nextBatch":']]))
  const { guard, emitted } = await startScene(server.url, 'corrupted-2', { store })
  const again = sdk.otherTab(guard)
  assert.equal((await again.sync()).status, 200)
  assert.match(emitted('unguarded')[0]?.error ?? '', /ledger\/head.*damaged/)
  await assert.rejects(guard.explain('x'), /damaged/)
  assert.equal((await store.read()).records.get('ledger/head'), '{"nextBatch":')
})

test("another device's requests on the same store pass unguarded", async () => {
  const { sdk, guard, emitted, store } = await startScene(server.url, 'foreign')
  await sdk.round()
  const generation = await store.generation()
  const other = new ModelSdk(await MatrixSession.signIn(server.url, 'foreign-2', 'PHONE'), { fetch: guard })
  await other.round()
  assert.equal(other.uploads[0]?.status, 200)
  assert.match(emitted('unguarded')[0]?.error ?? '', /the store belongs to @foreign:test.example PHONE/)
  assert.equal(await store.generation(), generation)
})

test('a new token of the same device is accepted', async () => {
  const { sdk, guard, emitted } = await startScene(server.url, 'refresh')
  await sdk.round()
  const again = new ModelSdk(await MatrixSession.signIn(server.url, 'refresh', 'PHONE'), { fetch: guard })
  again.restore(sdk.state)
  assert.equal((await again.round()).status, 200)
  assert.deepEqual(emitted('unguarded'), [])
})

test('mode "report" reports and changes nothing; mode "off" does nothing', async () => {
  const { sdk, emitted, claim, reopen, store } = await startScene(server.url, 'report', { mode: 'report' })
  await sdk.round()
  const backup = sdk.state
  await claim(10)
  await sdk.round()
  sdk.restore(backup)
  await claim(1)
  await sdk.round()
  assert.equal(sdk.uploads.at(-1)?.status, 400)
  assert.deepEqual(
    emitted('drift').map(({ cause }) => cause),
    ['sdk_rollback', 'conflict'],
  )
  assert.deepEqual(emitted('healed'), [])
  assert.match(emitted('not_healed')[0]?.detail ?? '', /mode is "report"/)

  const generation = await store.generation()
  await sdk.otherTab(reopen({ mode: 'off' })).round()
  assert.equal(await store.generation(), generation)
})
