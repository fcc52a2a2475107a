/** Requests of other realms' classes: of an iframe, a polyfill, a test environment. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { guardFetch, memoryStore } from '@latchkey/client'
import { startTestServer } from '@latchkey/testing/test-server.ts'
import { ModelSdk } from '../support/guard/model-sdk.ts'

const server = await startTestServer()
after(() => server[Symbol.asyncDispose]())

/** A polyfill's `Request`: its members, without its prototype chain. */
class OtherRequest {
  readonly url: string
  readonly method: string
  readonly headers: Headers
  readonly #body: string

  constructor(url: string, method: string, headers: Record<string, string>, body: string) {
    this.url = url
    this.method = method
    this.headers = new Headers(headers)
    this.#body = body
  }

  clone(): OtherRequest {
    return new OtherRequest(this.url, this.method, Object.fromEntries(this.headers), this.#body)
  }

  async text(): Promise<string> {
    return this.#body
  }
}

test("another realm's Request is handled like any other upload: recorded, healed, and replayed", async () => {
  const session = await MatrixSession.signIn(server.url, 'realm', 'PHONE')
  const sdk = new ModelSdk(session)
  const before = sdk.state
  sdk.generate(3)
  await sdk.upload()
  sdk.restore(before)
  sdk.generate(3)

  const seen: unknown[] = []
  // A polyfill's fetch takes the polyfill's Request.
  const polyfill = async (input: unknown, init?: RequestInit): Promise<Response> => {
    seen.push(input)
    if (!(input instanceof OtherRequest)) return fetch(input as string, init)
    const { url, method, headers } = input
    return fetch(url, { method, headers, body: await input.text(), ...init })
  }
  const guard = guardFetch(polyfill as typeof fetch, { store: memoryStore() })
  const request = new OtherRequest(
    `${server.url}/_matrix/client/v3/keys/upload`,
    'POST',
    { authorization: `Bearer ${session.token}`, 'content-type': 'application/json' },
    JSON.stringify({ one_time_keys: sdk.pendingBody().one_time_keys }),
  )
  const response = await guard(request as unknown as Request)
  assert.equal(response.status, 200)
  assert.equal(seen.filter((input) => input === request).length, 1, 'it is first sent unchanged')
  assert.equal((await guard.status()).keys.available, 3)
  assert.deepEqual(await sdk.orphans(), [])
})

test("another realm's URL, and an invalid input, are passed to the given fetch", async () => {
  const answer = new Response('{}')
  const guard = guardFetch(async () => answer, { store: memoryStore() })
  for (const input of [
    { href: 'https://x.example/a', toString: () => 'https://x.example/a' },
    undefined,
    7,
  ]) {
    assert.equal(await guard(input as unknown as URL), answer)
  }
})

test('a request that cannot be read as key traffic passes, and it is reported', async () => {
  const answer = new Response('{}')
  const events: string[] = []
  const guard = guardFetch(async () => answer, {
    store: memoryStore(),
    onEvent: ({ type }) => events.push(type),
  })
  const broken = {
    url: 'https://x.example/_matrix/client/v3/keys/upload',
    method: 'POST',
    get headers(): never {
      throw new Error('no headers here')
    },
  }
  assert.equal(await guard(broken as unknown as Request), answer)
  assert.deepEqual(events, ['unguarded'])
})
