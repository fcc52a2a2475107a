/** Oversized input: bodies, names, numbers of things. Memory stays bounded, answers are short, nothing is stored. */
import assert from 'node:assert/strict'
import test, { after, describe } from 'node:test'
import { openSocket, readToEnd } from '../support/raw-http.ts'
import {
  CLAIM,
  claim,
  CLIENT,
  CURVE,
  ids,
  keyObject,
  keys,
  named,
  ok,
  pool,
  refused,
  sync,
  tryReset,
  tryUpload,
  upload,
  UPLOAD,
} from '@latchkey/testing/test-client.ts'
import { type AnyJson, startTestServer } from '@latchkey/testing/test-server.ts'

const server = await startTestServer()
after(() => server[Symbol.asyncDispose]())
const alice = await server.login('alice', 'ALICE')
const { token } = alice
const MB = 1024 * 1024

describe('a body over the limit', () => {
  test('is a 413 under any limit, and stores nothing', async () => {
    const sizes = { ...server.context.config.sizes, bodyBytes: 2000 }
    await using small = await startTestServer({ sizes })
    const device = await small.login('alice', 'A')
    await upload(small, device, { one_time_keys: keys(ids(5)) })
    refused(await tryUpload(small, device, { one_time_keys: keys(ids(30, 10)) }), 413, 'M_TOO_LARGE')
    assert.equal((await pool(small, device)).algorithms[CURVE].count, 5)
  })

  test('is a 413 for 11 MB under the default limit', async () => {
    const body = JSON.stringify({ padding: 'x'.repeat(11 * MB) })
    refused(await server.call('POST', UPLOAD, { token, body }), 413, 'M_TOO_LARGE')
  })

  test('is refused before it is sent if it announces 40 MB', async () => {
    const socket = await openSocket(server)
    const answer = readToEnd(socket)
    socket.write(
      `POST ${UPLOAD} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nContent-Length: ${40 * MB}\r\n\r\n{`,
    )
    const { status, text } = await answer
    assert.deepEqual([status, JSON.parse(text).errcode], [413, 'M_TOO_LARGE'])
  })

  test('is cut off at the limit if it has 40 MB in chunks', async () => {
    const socket = await openSocket(server)
    const ended = readToEnd(socket)
    socket.write(
      `POST ${UPLOAD} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nTransfer-Encoding: chunked\r\n\r\n`,
    )
    const chunk = Buffer.alloc(64 * 1024, ' ')
    const framed = Buffer.concat([
      Buffer.from(`${chunk.length.toString(16)}\r\n`),
      chunk,
      Buffer.from('\r\n'),
    ])
    let sent = 0
    while (!socket.closed && !socket.destroyed && sent < 40 * MB) {
      sent += chunk.length
      if (!socket.write(framed)) await Promise.race([new Promise((go) => socket.once('drain', go)), ended])
    }
    const { status } = await ended
    assert.ok(status === 413 || status === 0, `answered ${status}`)
    assert.ok(sent < 20 * MB, `${sent} bytes were taken`)
    await upload(server, alice, {})
  })

  test('is a 413 over 64 KiB where small bodies are enough, before and after a login', async () => {
    const padding = 'x'.repeat(65_536)
    for (const [method, path] of [
      ['POST', '/login'],
      ['POST', '/register'],
      ['POST', '/logout'],
      ['POST', '/account/password'],
      ['PUT', `/devices/${alice.deviceId}`],
      ['DELETE', '/devices/UNKNOWN'],
    ] as const) {
      const reply = await server.call(method, CLIENT + path, { token, body: { padding } })
      assert.match(refused(reply, 413, 'M_TOO_LARGE'), /65536 bytes/)
    }
    ok(await server.call('POST', UPLOAD, { token, body: { padding } }))
  })

  test('is measured as sent if it is a document: escapes do not make it larger', async () => {
    const path = `${CLIENT}/user/${encodeURIComponent(alice.userId)}/account_data/org.example`
    const body = `{"text":"${'\\u0061'.repeat(60_000)}"}`
    ok(await server.call('PUT', path, { token, body }))
    const over = JSON.stringify({ text: 'a'.repeat(65_536) })
    refused(await server.call('PUT', path, { token, body: over }), 413, 'M_TOO_LARGE')
  })

  test('is not read without a valid access token', async () => {
    const socket = await openSocket(server)
    const answer = readToEnd(socket)
    const head = `POST ${UPLOAD} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${5 * MB}\r\n\r\n{`
    socket.write(head)
    socket.on('data', () => socket.end())
    assert.equal((await answer).status, 401)
  })
})

describe('incomplete bodies', () => {
  const head = (path: string, more: string): string =>
    `POST ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${device.token}\r\n${more}\r\n\r\n`
  const sizes = { ...server.context.config.sizes, bodyBytesInFlight: 400_000 }
  let device = alice

  test('over the memory budget of the process are a 503 with a retry time, and the budget is freed again', async () => {
    await using small = await startTestServer({ sizes })
    device = await small.login('alice', 'A')
    const full = Buffer.alloc(290_000, ' ')
    for (const framing of ['announced', 'chunked'] as const) {
      const length = `${full.length.toString(16)}\r\n`
      const slow = await openSocket(small)
      slow.write(
        head(UPLOAD, framing === 'announced' ? 'Content-Length: 300000' : 'Transfer-Encoding: chunked'),
      )
      slow.write(framing === 'announced' ? full : Buffer.concat([Buffer.from(length), full]))
      const padded = { padding: 'x'.repeat(20_000) }
      let reply = await tryUpload(small, device, padded)
      for (let n = 0; reply.status === 200 && n < 1000; n++) reply = await tryUpload(small, device, padded)
      refused(reply, 503, 'M_UNKNOWN')
      assert.ok(reply.body.retry_after_ms > 0)
      const dripped = await openSocket(small)
      const refusal = readToEnd(dripped)
      dripped.write(head(UPLOAD, 'Transfer-Encoding: chunked'))
      dripped.write('4e20\r\n')
      dripped.write(' '.repeat(20_000))
      assert.equal((await refusal).status, 503)
      await small.login('bob', 'B')
      slow.destroy()
      for (let n = 0; (await tryUpload(small, device, padded)).status !== 200; n++) assert.ok(n < 1000)
      await upload(small, device, { padding: 'x'.repeat(280_000) })
    }
  })

  test('in chunks of one byte count with the memory that such chunks take', async () => {
    await using small = await startTestServer({ sizes })
    device = await small.login('alice', 'A')
    const socket = await openSocket(small)
    const answer = readToEnd(socket)
    socket.write(head(UPLOAD, 'Transfer-Encoding: chunked'))
    socket.write('1\r\n \r\n'.repeat(2000))
    assert.equal((await answer).status, 503)
    await upload(small, device, { padding: 'x'.repeat(280_000) })
  })

  test('of anonymous requests do not use the budget of logged-in clients', async () => {
    await using small = await startTestServer({ sizes })
    device = await small.login('alice', 'A')
    const strangers = await Promise.all([1, 2].map(() => openSocket(small)))
    for (const socket of strangers) {
      socket.write(head(`${CLIENT}/login`, 'Content-Length: 50000'))
      socket.write(' '.repeat(49_000))
    }
    const login = { type: 'x', padding: 'x'.repeat(5_000) }
    let status = 0
    for (let n = 0; status !== 503 && n < 1000; n++)
      status = (await small.call('POST', `${CLIENT}/login`, { body: login })).status
    assert.equal(status, 503)
    await upload(small, device, { padding: 'x'.repeat(280_000) })
    for (const socket of strangers) socket.destroy()
  })
})

describe('JSON values', () => {
  test('over the limit are a 413 that names the limit', async () => {
    const body = `{"x":[${'{},'.repeat(3 * MB)}{}]}`
    await upload(server, alice, {})
    assert.match(refused(await server.call('POST', UPLOAD, { token, body }), 413, 'M_TOO_LARGE'), /20000/)
  })

  test('at the limit are accepted, in any form', async () => {
    const sizes = { ...server.context.config.sizes, jsonValues: 1000 }
    await using small = await startTestServer({ sizes })
    const device = await small.login('alice', 'A')
    const post = (body: string): Promise<{ status: number; body: AnyJson }> =>
      small.call('POST', UPLOAD, { token: device.token, body })
    // The body and the array are two of the values.
    for (const value of ['{}', '[]', '"[,{"', '1', 'null', ' { } ']) {
      const body = (count: number): string => `{"x":[${Array(count).fill(value).join()}]}`
      ok(await post(body(998)))
      assert.match(refused(await post(body(999)), 413, 'M_TOO_LARGE'), /1000/)
    }
  })
})

describe('names', () => {
  const huge = 'x'.repeat(MB)

  test('of 1 MB are refused with a short text, as key ID, algorithm, user, device or key', async () => {
    const before = await pool(server, alice)
    const post = (path: string, body: unknown): Promise<{ status: number; body: AnyJson }> =>
      server.call('POST', CLIENT + path, { token, body })
    for (const reply of [
      await post('/keys/upload', { one_time_keys: { [named(huge)]: keyObject('k') } }),
      await post('/keys/upload', { one_time_keys: { [`${huge}:1`]: 'k' } }),
      await post('/keys/upload', { fallback_keys: { [named(huge)]: keyObject('k') } }),
      await post('/keys/upload', { one_time_keys: { [huge]: 'k' } }),
      await post('/keys/upload', { one_time_keys: { [named('A')]: huge } }),
      await post('/keys/upload', { one_time_keys: { [named('A')]: [huge] } }),
      await post('/keys/upload', { device_keys: { user_id: huge } }),
      await post('/keys/claim', { one_time_keys: { [huge]: { D: CURVE } } }),
      await post('/keys/claim', { one_time_keys: { [alice.userId]: { [huge]: [] } } }),
      await post('/keys/query', { device_keys: { [huge]: {} } }),
      await post('/keys/reset', { key_ids: [huge] }),
      await post('/keys/reset', { key_ids: [named(huge)] }),
      await post('/keys/reset', { all: true, 'dev.latchkey.request_id': huge }),
      await post('/login', { type: huge }),
      await post('/register', { username: huge, password: 'password' }),
    ]) {
      const { error, errcode } = reply.body
      assert.ok(reply.status === 400 || reply.status === 413, `${reply.status} ${error.slice(0, 200)}`)
      assert.match(errcode, /^M_/)
      assert.ok(JSON.stringify(reply.body).length < 500, error.slice(0, 600))
    }
    assert.deepEqual(await pool(server, alice), before)
  })

  test('of 1 MB in a query are not found', async () => {
    const wanted = { one_time_keys: { [alice.userId]: { [huge]: CURVE, [alice.deviceId]: huge } } }
    assert.deepEqual(ok(await server.call('POST', CLAIM, { token, body: wanted })).one_time_keys, {})
    const body = { device_keys: { [alice.userId]: [huge] } }
    const query = await server.call('POST', `${CLIENT}/keys/query`, { token, body })
    assert.deepEqual(ok(query).device_keys, { [alice.userId]: {} })
  })

  test('of 255 bytes of UTF-8 are accepted, and of 256 bytes refused', async () => {
    const umlauts = 'ü'.repeat(127)
    await upload(server, alice, {
      one_time_keys: { [named('y'.repeat(255))]: 'a', [named(`${umlauts}x`)]: 'b' },
    })
    for (const keyId of ['y'.repeat(256), `${umlauts}xx`]) {
      refused(
        await tryUpload(server, alice, { one_time_keys: { [named(keyId)]: 'c' } }),
        400,
        'M_INVALID_PARAM',
      )
    }
  })

  test('a key object over 16 KiB is a 413 that names the key', async () => {
    const reply = await tryUpload(server, alice, {
      one_time_keys: { [named('BIG')]: keyObject('b', { padding: 'x'.repeat(17_000) }), ...keys(['SMALL']) },
    })
    assert.match(refused(reply, 413, 'M_TOO_LARGE'), /BIG/)
  })
})

describe('counts', () => {
  test('a claim for 10 000 devices is answered, and one for 10 001 refused', async () => {
    const [bob, carol] = [await server.login('bob', 'BOB'), await server.login('carol', 'CAROL')]
    for (const device of [bob, carol]) await upload(server, device, { one_time_keys: keys(['A', 'B']) })
    const wanted = (count: number): Record<string, Record<string, string>> => {
      const devices = Object.fromEntries(ids(count).map((id) => [id, CURVE]))
      return { [bob.userId]: { ...devices, BOB: CURVE }, [carol.userId]: { CAROL: CURVE } }
    }
    const over = await server.call('POST', CLAIM, { token, body: { one_time_keys: wanted(9_999) } })
    assert.match(refused(over, 400, 'M_INVALID_PARAM'), /10000/)
    const answer = await server.call('POST', CLAIM, { token, body: { one_time_keys: wanted(9_998) } })
    assert.deepEqual(ok(answer).one_time_keys, {
      [bob.userId]: { BOB: { [named('A')]: keyObject('k/A') } },
      [carol.userId]: { CAROL: { [named('A')]: keyObject('k/A') } },
    })
  })

  test('100 000 keys over 20 days leave the newest 500, in order', async () => {
    let now = Date.now()
    await using patient = await startTestServer({}, { now: () => now })
    const [device, other] = [await patient.login('alice', 'A'), await patient.login('bob', 'B')]
    const names = (from: number): Record<string, string> =>
      Object.fromEntries(ids(500, from).map((id) => [named(id), `key ${id}`]))
    for (let stored = 0; stored < 100_000; stored += 500) {
      if (stored % 5000 === 0) now += 24 * 60 * 60 * 1000
      const answer = await upload(patient, device, { one_time_keys: names(stored) })
      assert.equal(answer.one_time_key_counts[CURVE], 500)
      assert.equal(answer['dev.latchkey.evicted'].length, stored === 0 ? 0 : 500)
    }
    refused(await tryUpload(patient, device, { one_time_keys: names(100_000) }), 429, 'M_LIMIT_EXCEEDED')
    assert.equal((await claim(patient, other, device))?.name, named('k99500'))
  })

  test('a reset that names more keys than a device can have is refused', async () => {
    const reply = await tryReset(server, alice, { key_ids: ids(1001).map(named) })
    refused(reply, 400, 'M_INVALID_PARAM')
    await tryReset(server, alice, { key_ids: ids(1000).map(named) }).then(ok)
  })

  test('a query for 10 001 users and a request with 10 001 messages are refused', async () => {
    const users = ids(10_001).map((id) => `@${id}:test.example`)
    const device_keys = Object.fromEntries(users.map((user) => [user, []]))
    const query = await server.call('POST', `${CLIENT}/keys/query`, { token, body: { device_keys } })
    refused(query, 400, 'M_INVALID_PARAM')
    const messages = Object.fromEntries(users.map((user) => [user, { D: {} }]))
    const path = `${CLIENT}/sendToDevice/m.flood/1`
    const flood = await server.call('PUT', path, { token, body: { messages } })
    refused(flood, 400, 'M_INVALID_PARAM')
  })

  test('a query that names 10 001 devices of one user, or 100 001 in total, is refused', async () => {
    const query = (device_keys: unknown): Promise<{ status: number; body: AnyJson }> =>
      server.call('POST', `${CLIENT}/keys/query`, { token, body: { device_keys } })
    const many = ids(10_000)
    const full = Object.fromEntries(ids(10).map((id) => [`@${id}:test.example`, many]))
    ok(await query(full))
    const over = refused(await query({ ...full, '@one:test.example': ['MORE'] }), 400, 'M_INVALID_PARAM')
    assert.match(over, /100000/)
    const one = refused(await query({ '@one:test.example': [...many, 'MORE'] }), 400, 'M_INVALID_PARAM')
    assert.match(one, /10000 .*@one:test\.example/)
  })

  test('at most 1 000 devices are deleted at once', async () => {
    const path = `${CLIENT}/delete_devices`
    const post = (devices: readonly string[]): Promise<{ status: number; body: AnyJson }> =>
      server.call('POST', path, { token, body: { devices } })
    const longest = ids(1000).map((id) => id.padEnd(255, 'x'))
    assert.equal((await post(longest)).status, 401)
    const over = refused(await post(ids(1001)), 400, 'M_INVALID_PARAM')
    assert.match(over, /1001 .*1000/)
  })

  test('an inbox keeps the newest messages up to its limit', async () => {
    const sizes = { ...server.context.config.sizes, inboxMessages: 10 }
    await using small = await startTestServer({ sizes })
    const device = await small.login('alice', 'A')
    for (let n = 0; n < 25; n++) {
      const body = { messages: { [device.userId]: { A: { n } } } }
      ok(await small.call('PUT', `${CLIENT}/sendToDevice/m.flood/${n}`, { token: device.token, body }))
    }
    const { to_device } = await sync(small, device)
    const numbers = to_device.events.map((event: { content: { n: number } }) => event.content.n)
    assert.deepEqual(numbers, [15, 16, 17, 18, 19, 20, 21, 22, 23, 24])
  })
})
