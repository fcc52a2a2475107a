/** Costs of requests: who pays, what is refused before which work, and what is left to others (http/costs.ts). */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Agent, type IncomingMessage, request as httpRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import test, { describe } from 'node:test'
import { DEFAULT_CONFIG, DEFAULT_RATES } from '../../src/config/config.ts'
import { clientApi } from '../../src/http/client-api/index.ts'
import { COSTS } from '../../src/http/costs.ts'
import { healthApi } from '../../src/http/health.ts'
import { openSocket, readToEnd } from '../support/raw-http.ts'
import {
  CLAIM,
  CLIENT,
  CURVE,
  ids,
  keys,
  ok,
  refused,
  tryUpload,
  UPLOAD,
} from '@latchkey/testing/test-client.ts'
import {
  type AnyJson,
  startTestServer,
  type TestDevice,
  type TestServer,
} from '@latchkey/testing/test-server.ts'

const NOW = 1_700_000_000_000
const QUERY = `${CLIENT}/keys/query`

/** A server whose clock stands still, so that no bucket refills. */
function startLimited(perUser: number): Promise<TestServer> {
  const rates = { ...DEFAULT_RATES, workPerUser: { burst: perUser, perSecond: 100 } }
  return startTestServer({ rates }, { now: () => NOW })
}

function query(
  server: TestServer,
  { token }: TestDevice,
  users: number,
): Promise<{ status: number; body: AnyJson }> {
  const names = ids(users).map((id) => [`@${id}:test.example`, []])
  return server.call('POST', QUERY, { token, body: { device_keys: Object.fromEntries(names) } })
}

test('every endpoint has a cost, and every cost an endpoint', () => {
  const names = [...clientApi(DEFAULT_CONFIG), ...healthApi].map(({ method, path }) => `${method} ${path}`)
  assert.deepEqual(Object.keys(COSTS).toSorted(), names.toSorted())
})

describe('a user', () => {
  test('pays for what a request names, and others do not', async () => {
    await using server = await startLimited(1000)
    const [alice, bob] = [await server.login('alice'), await server.login('bob')]
    ok(await query(server, alice, 200))
    const { body } = await query(server, alice, 200)
    refused({ status: 429, body }, 429, 'M_LIMIT_EXCEEDED')
    assert.ok(body.retry_after_ms > 5_000, `${body.retry_after_ms} ms`)
    ok(await query(server, alice, 1))
    ok(await query(server, bob, 200))
  })

  test('pays for all devices together', async () => {
    await using server = await startLimited(1000)
    const devices = [await server.login('alice', 'A'), await server.login('alice', 'B')] as const
    ok(await query(server, devices[0], 200))
    assert.equal((await query(server, devices[1], 200)).status, 429)
  })

  test('pays for the answer after it was made', async () => {
    await using server = await startLimited(85)
    const alice = await server.login('alice')
    const path = `${CLIENT}/user/${encodeURIComponent(alice.userId)}/account_data/org.example`
    const { token } = alice
    ok(await server.call('PUT', path, { token, body: { text: 'x'.repeat(60_000) } }))
    // The answer of 60 kB costs 29 units, and only 5 are asked for in advance.
    ok(await server.call('GET', path, { token }))
    assert.equal((await server.call('GET', path, { token })).status, 429)
  })

  test('waits 2 s at most after a refused upload', async () => {
    await using server = await startLimited(3000)
    const alice = await server.login('alice')
    ok(await tryUpload(server, alice, { one_time_keys: keys(ids(200)) }))
    const { status, body } = await tryUpload(server, alice, { one_time_keys: keys(ids(200, 200)) })
    assert.deepEqual([status, body.retry_after_ms], [429, 2000])
  })

  test('is refused before the body is read', async () => {
    await using server = await startLimited(1000)
    const alice = await server.login('alice')
    ok(await query(server, alice, 200))
    const socket = await openSocket(server)
    const answer = readToEnd(socket)
    socket.write(
      `POST ${UPLOAD} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${alice.token}\r\nContent-Length: 9000000\r\n\r\n{`,
    )
    socket.once('data', () => socket.end())
    const { status, head } = await answer
    assert.equal(status, 429)
    assert.match(head, /retry-after: 2\b/)
  })

  // Node reads the rest of a refused body, within the time limit of a request, so that no client sees a reset.
  for (const [name, bytes, chunked] of [
    ['a small body', 1_000, false],
    ['a large body', 9_000_000, false],
    ['a body in chunks', 1_000_000, true],
  ] as const) {
    test(`reads the refusal of ${name}, and its connection goes on`, async () => {
      await using server = await startLimited(840)
      const alice = await server.login('alice')
      ok(await query(server, alice, 200))
      const agent = new Agent({ keepAlive: true, maxSockets: 1 })
      const body = JSON.stringify({ x: 'x'.repeat(bytes) })
      const ports = new Set<number>()
      for (let n = 0; n < 3; n++) {
        const { status, port } = await sendBy(agent, `${server.url}${UPLOAD}`, alice.token, body, chunked)
        assert.equal(status, 429)
        ports.add(port)
      }
      agent.destroy()
      assert.equal(ports.size, 1)
      // The same with fetch, as SDKs use it.
      assert.equal((await server.call('POST', UPLOAD, { token: alice.token, body })).status, 429)
    })
  }

  test('keeps the connection after a refusal of what its body has', async () => {
    await using server = await startLimited(10)
    const alice = await server.login('alice')
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    const answers: { status: number; port: number }[] = []
    for (const body of [JSON.stringify({ x: Array<number>(1_000).fill(1) }), '{', '{}'])
      answers.push(await sendBy(agent, `${server.url}${CLIENT}/keys/query`, alice.token, body, false))
    agent.destroy()
    assert.equal(answers[0]?.status, 429)
    assert.equal(new Set(answers.map(({ port }) => port)).size, 1)
  })

  test('is not limited with limits off', async () => {
    await using server = await startTestServer({}, { now: () => NOW })
    const alice = await server.login('alice')
    for (let n = 0; n < 5; n++) ok(await query(server, alice, 1000))
  })
})

test('anonymous requests are paid by their address', async () => {
  const workPerAddress = { burst: 100, perSecond: 1 }
  await using server = await startTestServer(
    { rates: { ...DEFAULT_RATES, workPerAddress } },
    { now: () => NOW },
  )
  const answers: number[] = []
  for (let n = 0; n < 6; n++) {
    const body = { type: 'unknown', padding: 'x'.repeat(4_096) }
    answers.push((await server.call('POST', `${CLIENT}/login`, { body })).status)
  }
  assert.deepEqual(answers, [400, 400, 400, 400, 429, 429])
})

describe('names', () => {
  const many = (count: number, value: unknown): object =>
    Object.fromEntries(ids(count).map((id) => [`@${id}:test.example`, value]))

  const rows: readonly (readonly [string, string, string, (names: object) => unknown])[] = [
    ['claim', 'POST', CLAIM, (names) => ({ one_time_keys: names })],
    ['query', 'POST', QUERY, (names) => ({ device_keys: names })],
    ['send', 'PUT', `${CLIENT}/sendToDevice/x/1`, (names) => ({ messages: names })],
    ['signatures', 'POST', `${CLIENT}/keys/signatures/upload`, (names) => names],
  ]
  for (const [name, method, path, bodyOf] of rows) {
    test(`a ${name} of too many users without anything is refused and read by no one`, async () => {
      await using server = await startTestServer()
      const { token } = await server.login('alice')
      const calls = countReads(server)
      const few = await server.call(method, path, { token, body: bodyOf(many(10_001, {})) })
      assert.match(refused(few, 400, 'M_INVALID_PARAM'), /names 10001 users; at most 10{3,4} users/)
      const most = await server.call(method, path, { token, body: bodyOf(many(190_000, {})) })
      const what =
        most.status === 413 ? /At most \d+ users and \d+ [a-z ]+ are accepted/ : /at most \d+ users/
      assert.match(refused(most, most.status, most.body.errcode), what)
      assert.ok([400, 413].includes(most.status), `${most.status}`)
      assert.equal(calls.count, 0)
    })
  }

  test('of any kind are counted over all users', async () => {
    await using server = await startTestServer()
    const { token } = await server.login('alice')
    const devices = Object.fromEntries(ids(5_001).map((id) => [id, CURVE]))
    const body = { one_time_keys: { '@a:test.example': devices, '@b:other.example': devices } }
    const reply = await server.call('POST', CLAIM, { token, body })
    assert.match(refused(reply, 400, 'M_INVALID_PARAM'), /names 10002 devices/)
  })
})

/** Sends a body with Node's client; resolves with the answer and the client's end of its connection. */
async function sendBy(
  agent: Agent,
  url: string,
  token: string,
  body: string,
  chunked: boolean,
): Promise<{ status: number; port: number }> {
  const request = httpRequest(url, { method: 'POST', agent, headers: { authorization: `Bearer ${token}` } })
  if (!chunked) request.setHeader('content-length', body.length)
  const answered = once(request, 'response')
  request.end(body)
  const [response] = (await answered) as [IncomingMessage]
  const { port } = response.socket.address() as AddressInfo
  response.resume()
  await once(response, 'end')
  return { status: response.statusCode ?? 0, port }
}

/** Counts the calls by which the handlers of these endpoints begin. */
function countReads({ context }: TestServer): { count: number } {
  const calls = { count: 0 }
  const { devices, messages } = context.store
  for (const [target, name] of [
    [devices, 'published'],
    [devices, 'track'],
    [messages, 'send'],
    [context.pools, 'claim'],
  ] as const) {
    const original = Reflect.get(target, name) as (...args: unknown[]) => unknown
    Reflect.set(target, name, (...args: unknown[]) => {
      calls.count++
      return original.apply(target, args)
    })
  }
  return calls
}
