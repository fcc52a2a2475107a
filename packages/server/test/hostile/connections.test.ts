/** Long-lived connections: thousands of idle long-polls, slow requests, clients that disconnect. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import test, { after, describe } from 'node:test'
import { openSocket, readToEnd } from '../support/raw-http.ts'
import {
  claim,
  CLIENT,
  keys,
  longPoll,
  ok,
  sync,
  trySync,
  until,
  upload,
  UPLOAD,
} from '@latchkey/testing/test-client.ts'
import { startTestServer, type TestDevice, type TestServer } from '@latchkey/testing/test-server.ts'

const POLLS = 2_000
/**
 * Both ends of a connection are in this process; the server's own share is about a third. The garbage that PostgreSQL's
 * driver produces is resident too: either store uses 11 kB of heap per poll.
 */
const MAX_BYTES_PER_POLL = (process.env['LATCHKEY_TEST_POSTGRES'] ?? '') === '' ? 60_000 : 120_000

async function pollBySocket(server: TestServer, device: TestDevice, since: string): Promise<Socket> {
  const socket = await openSocket(server)
  socket.write(
    `GET ${CLIENT}/sync?timeout=120000&since=${since} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${device.token}\r\n\r\n`,
  )
  return socket
}

describe('2 000 idle long-polls', () => {
  test('use little memory each, do not block other requests, and are all answered by one event', async (t) => {
    const limits = { waitingSyncs: POLLS, waitingSyncsPerUser: POLLS, waitingSyncsPerDevice: POLLS }
    const base = await startTestServer()
    const sizes = { ...base.context.config.sizes, ...limits }
    await base[Symbol.asyncDispose]()
    await using server = await startTestServer({ sizes })
    const [idle, alice, bob] = [
      await server.login('idle', 'IDLE'),
      await server.login('alice', 'A'),
      await server.login('bob', 'B'),
    ]
    const since = (await sync(server, idle)).next_batch
    globalThis.gc?.()
    const before = process.memoryUsage().rss
    const sockets: Socket[] = []
    for (let n = 0; n < POLLS; n++) sockets.push(await pollBySocket(server, idle, since))
    await until(() => server.context.waiters.count === POLLS)
    globalThis.gc?.()
    const perPoll = Math.round((process.memoryUsage().rss - before) / POLLS)
    t.diagnostic(`${perPoll} bytes of resident memory per idle long-poll, both ends`)
    assert.ok(perPoll < MAX_BYTES_PER_POLL, `${perPoll} bytes per poll`)

    for (let round = 0; round < 20; round++) {
      await upload(server, alice, { one_time_keys: keys([`K${round}`]) })
      assert.ok(await claim(server, bob, alice))
    }
    const [oldest, ...others] = sockets
    assert.ok(oldest)
    const first = once(oldest, 'data')
    const caughtUp = (await sync(server, alice)).next_batch
    const beyond = trySync(server, alice, { since: caughtUp, timeout: '60000' })
    await first
    assert.equal(server.context.waiters.count, POLLS, 'the user with the most waiting syncs gives way')

    const answered = others.map((socket) => once(socket, 'data'))
    const path = `${CLIENT}/sendToDevice/m.wake/1`
    const body = { messages: { [idle.userId]: { '*': { wake: 'up' } } } }
    ok(await server.call('PUT', path, { token: bob.token, body }))
    await Promise.all(answered)
    assert.equal(server.context.waiters.count, 1)
    server.context.waiters.close()
    assert.equal((await beyond).status, 200)
    assert.equal(server.context.waiters.count, 0)
    for (const socket of sockets) socket.destroy()
  })

  test('are forgotten when their clients disconnect', async () => {
    await using server = await startTestServer()
    const device = await server.login('alice', 'A')
    const since = (await sync(server, device)).next_batch
    const sockets: Socket[] = []
    for (let n = 0; n < 8; n++) sockets.push(await pollBySocket(server, device, since))
    await until(() => server.context.waiters.count === 8)
    for (const socket of sockets) socket.destroy()
    await until(() => server.context.waiters.count === 0)
  })
})

describe('slow requests', () => {
  test('are ended after the request timeout, in head or body, while others are served', async () => {
    const defaults = await startTestServer()
    const sizes = { ...defaults.context.config.sizes, requestTimeoutMs: 400 }
    await defaults[Symbol.asyncDispose]()
    await using server = await startTestServer({ sizes })
    const alice = await server.login('alice', 'A')
    const since = (await sync(server, alice)).next_batch
    const poll = await longPoll(server, alice, since)
    const head = `POST ${UPLOAD} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${alice.token}\r\n`
    const ends = [
      { start: `${head}X-Slow: `, drop: 'a' },
      { start: `${head}Content-Length: 1000\r\n\r\n{`, drop: ' ' },
      { start: `${head}Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n`, drop: '1\r\n \r\n' },
    ].map(async ({ start, drop }) => {
      const socket = await openSocket(server)
      const end = readToEnd(socket)
      socket.write(start)
      const drip = setInterval(() => socket.write(drop), 50)
      const answer = await end
      clearInterval(drip)
      return answer
    })
    const trickling = new Set(ends)
    for (const end of ends) void end.then(() => trickling.delete(end))
    let served = 0
    for (; trickling.size > 0; served++) await upload(server, alice, {})
    for (const answer of await Promise.all(ends)) {
      assert.ok(answer.status === 408 || answer.status === 0, `answered ${answer.status}`)
    }
    assert.ok(served > 5, `${served} requests were served meanwhile`)
    const body = { messages: { [alice.userId]: { A: {} } } }
    ok(await server.call('PUT', `${CLIENT}/sendToDevice/m.wake/1`, { token: alice.token, body }))
    assert.equal(ok(await poll.answer).to_device.events.length, 1, 'a long-poll is not a slow request')
  })
})

describe('a client that disconnects', () => {
  const server = startTestServer()
  after(async () => (await server)[Symbol.asyncDispose]())

  test('in the middle of its body has stored nothing', async () => {
    const running = await server
    const alice = await running.login('alice', 'A')
    const body = JSON.stringify({ one_time_keys: keys(['A']) })
    const socket = await openSocket(running)
    socket.write(
      `POST ${UPLOAD} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${alice.token}\r\nContent-Length: ${body.length}\r\n\r\n`,
    )
    socket.end(body.slice(0, -1))
    await readToEnd(socket)
    assert.equal((await upload(running, alice, {})).one_time_key_counts.signed_curve25519, 0)
  })
})
