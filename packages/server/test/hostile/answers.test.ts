/** Answers that clients do not read, read slowly, or read late (http/answers-in-flight.ts, http/connections.ts). */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import test, { describe } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { openSocket, readToEnd } from '../support/raw-http.ts'
import {
  CLIENT,
  deviceKeys,
  longPoll,
  ok,
  refused,
  send,
  SYNC,
  sync,
  trySync,
  until,
  upload,
} from '@latchkey/testing/test-client.ts'
import { DEFAULT_SIZES, type SizeLimits } from '../../src/config/config.ts'
import { startTestServer, type TestDevice, type TestServer } from '@latchkey/testing/test-server.ts'

const MIB = 1024 * 1024
/** Pages of 8.7 MiB. */
const LARGE_PAGES = { accountDataBytes: 3 * MIB, accountDataTotalBytes: 20 * MIB, syncPageBytes: 6 * MIB }

function start(sizes: Partial<SizeLimits>): Promise<TestServer> {
  return startTestServer({ sizes: { ...DEFAULT_SIZES, ...LARGE_PAGES, ...sizes } })
}

/** Makes the first sync of a user larger than what the kernel buffers of a connection. */
async function fill(server: TestServer, { userId, token }: TestDevice, count: number): Promise<void> {
  for (let n = 0; n < count; n++) {
    const body = { text: 'x'.repeat(2.9 * MIB) }
    ok(await server.call('PUT', `${CLIENT}/user/${userId}/account_data/org.example.${n}`, { token, body }))
  }
}

function get(path: string, { token }: TestDevice): string {
  return `GET ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n\r\n`
}

/** A connection that sends requests and does not read. */
async function deaf(server: TestServer, requests: string): Promise<Socket> {
  const socket = await openSocket(server)
  socket.pause()
  socket.write(requests)
  return socket
}

describe('answers that no client reads', () => {
  test('stay within the budget of their user, and leave others theirs, until the connections close', async () => {
    const limits = { answerBytesPerUser: 30 * MIB }
    await using server = await start(limits)
    const { answers } = server.context
    const [alice, bob] = [await server.login('alice', 'A'), await server.login('bob', 'B')]
    await fill(server, alice, 3)
    await fill(server, bob, 2)
    let most = 0
    const sockets: Socket[] = []
    for (let n = 0; n < 200; n++) {
      sockets.push(await deaf(server, get(SYNC, alice)))
      most = Math.max(most, answers.bytes)
    }
    await until(() => answers.bytes > 20 * MIB)
    const another = await trySync(server, alice)
    refused(another, 429, 'M_LIMIT_EXCEEDED')
    assert.ok(another.body.retry_after_ms > 0)
    assert.equal((await sync(server, bob)).account_data.events.length, 2)
    assert.ok(Math.max(most, answers.bytes) <= limits.answerBytesPerUser)
    for (const socket of sockets) socket.destroy()
    await until(() => answers.bytes === 0)
    assert.equal((await sync(server, alice)).account_data.events.length, 3)
  })

  test('are cut off when the client takes nothing for the time limit', async () => {
    await using server = await start({ answerTimeoutMs: 300 })
    const alice = await server.login('alice', 'A')
    await fill(server, alice, 3)
    const socket = await deaf(server, get(SYNC, alice))
    await until(() => server.context.answers.bytes > 0)
    await until(() => server.context.answers.bytes === 0)
    const { text } = await readToEnd(socket.resume())
    assert.ok(text.length < 8 * MIB, 'the answer is incomplete')
  })

  test('give way when the total is full', async () => {
    await using server = await start({ answerBytesInFlight: 20 * MIB, answerBytesPerUser: 100 * MIB })
    const [alice, bob] = [await server.login('alice', 'A'), await server.login('bob', 'B')]
    await fill(server, alice, 3)
    await fill(server, bob, 2)
    const sockets = [await deaf(server, get(SYNC, alice)), await deaf(server, get(SYNC, alice))]
    await until(() => server.context.answers.bytes > 17 * MIB)
    assert.equal((await sync(server, bob)).account_data.events.length, 2)
    assert.ok(server.context.answers.bytes < 12 * MIB, 'one answer of the heaviest user is cut off')
    for (const socket of sockets) socket.destroy()
    await until(() => server.context.answers.bytes === 0)
  })

  test('do not let a connection send requests without end', async () => {
    await using server = await start({})
    const alice = await server.login('alice', 'A')
    const since = (await sync(server, alice)).next_batch
    const waiting = get(`${SYNC}?since=${since}&timeout=60000`, alice)
    const socket = await openSocket(server)
    const end = readToEnd(socket)
    socket.write(waiting.repeat(40))
    await until(() => server.context.waiters.count > 0)
    ok(await send(server, alice, { [alice.userId]: { '*': {} } }, 'wake'))
    server.context.waiters.close()
    const { text } = await end
    assert.match(text, /HTTP\/1\.1 429 .*connection: close/s)
    assert.match(text, /This connection has 32 unanswered requests/)
  })
})

describe('the time limit of an answer', () => {
  test('does not end a sync that waits longer', async () => {
    await using server = await start({ answerTimeoutMs: 20 })
    const alice = await server.login('alice', 'A')
    const since = (await sync(server, alice)).next_batch
    const answer = await sync(server, alice, { since, timeout: '400' })
    assert.equal(answer.next_batch, since)
  })

  test('does not end the answer of a client that reads slowly', async () => {
    await using server = await start({ answerTimeoutMs: 1000 })
    const alice = await server.login('alice', 'A')
    await fill(server, alice, 3)
    const socket = await deaf(server, get(SYNC, alice).replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'))
    await until(() => server.context.answers.bytes > 0)
    let bytes = 0
    socket.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      socket.pause()
      setTimeout(() => socket.resume(), 8)
    })
    await once(socket.resume(), 'close')
    assert.ok(bytes > 8 * MIB, `${bytes} bytes`)
  })
})

describe('malformed input behind a request', () => {
  test('is answered after the sync ahead of it', async () => {
    await using server = await start({})
    const alice = await server.login('alice', 'A')
    const since = (await sync(server, alice)).next_batch
    const socket = await openSocket(server)
    const end = readToEnd(socket)
    socket.write(`${get(`${SYNC}?since=${since}&timeout=60000`, alice)}NONSENSE\r\n\r\n`)
    await until(() => server.context.waiters.count === 1)
    socket.write('MORE NONSENSE\r\n\r\n')
    ok(await send(server, alice, { [alice.userId]: { '*': { n: 1 } } }, 'wake'))
    const { status, text } = await end
    assert.equal(status, 200)
    assert.match(text, /"to_device":\{"events":\[\{.*HTTP\/1\.1 400 .*Malformed HTTP request\."\}$/s)
    assert.equal(text.split('HTTP/1.1 400').length, 2, 'once')
  })

  test('is answered after several answers, in their order', async () => {
    await using server = await start({})
    const alice = await server.login('alice', 'A')
    const since = (await sync(server, alice)).next_batch
    const waiting = get(`${SYNC}?since=${since}&timeout=100`, alice)
    const socket = await openSocket(server)
    const end = readToEnd(socket)
    socket.write(`${waiting}${get('/_matrix/client/versions', alice)}${waiting}\r\nX\r\n\r\n`)
    const { status, text } = await end
    assert.equal(status, 200)
    assert.deepEqual(text.match(/HTTP\/1\.1 \d+/g), ['HTTP/1.1 200', 'HTTP/1.1 200', 'HTTP/1.1 400'])
  })

  test('ends the sync ahead when the client stops sending', async () => {
    await using server = await start({})
    const alice = await server.login('alice', 'A')
    const since = (await sync(server, alice)).next_batch
    const socket = await openSocket(server)
    const end = readToEnd(socket)
    socket.write(`${get(`${SYNC}?since=${since}&timeout=60000`, alice)}NONSENSE\r\n\r\n`)
    await until(() => server.context.waiters.count === 1)
    socket.end()
    assert.equal((await end).status, 0)
    await until(() => server.context.waiters.count === 0)
  })

  test('in a body is answered at once, in place of its request', async () => {
    await using server = await start({})
    const alice = await server.login('alice', 'A')
    const socket = await openSocket(server)
    const end = readToEnd(socket)
    socket.write(
      `${get('/_matrix/client/versions', alice)}POST ${CLIENT}/keys/upload HTTP/1.1\r\nHost: x\r\n` +
        `Authorization: Bearer ${alice.token}\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n`,
    )
    const { status, text } = await end
    assert.equal(status, 200)
    assert.match(text, /HTTP\/1\.1 400 /)
  })
})

test('a query whose answer would be larger than a quarter of all answers is refused, and a smaller one answered', async () => {
  await using server = await start({ answerBytesInFlight: 4000 })
  const device_keys: Record<string, string[]> = {}
  const devices = [
    await server.login('alice', 'A'),
    await server.login('bob', 'B'),
    await server.login('carol', 'C'),
  ]
  for (const device of devices) {
    await upload(server, device, { device_keys: deviceKeys(device) })
    device_keys[device.userId] = []
  }
  const [alice] = devices
  assert.ok(alice)
  const query = (body: object): ReturnType<TestServer['call']> =>
    server.call('POST', `${CLIENT}/keys/query`, { token: alice.token, body })
  assert.match(refused(await query({ device_keys }), 413, 'M_TOO_LARGE'), /more than 1000 bytes/)
  ok(await query({ device_keys: { [alice.userId]: [] } }))
})

test('a long-poll that is answered after the time limit of answers is complete', async () => {
  await using server = await start({ answerTimeoutMs: 50 })
  const alice = await server.login('alice', 'A')
  const poll = await longPoll(server, alice, (await sync(server, alice)).next_batch)
  await pause(150)
  ok(await send(server, alice, { [alice.userId]: { '*': { text: 'x'.repeat(60_000) } } }, 'large'))
  assert.equal(ok(await poll.answer).to_device.events.length, 1)
})
