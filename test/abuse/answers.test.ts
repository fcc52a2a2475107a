/** One account that asks for large answers on many connections and reads none (issue 11, C3). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openSocket } from '../../packages/server/test/support/raw-http.ts'
import { CLIENT, ok, SYNC, sync, until } from '@latchkey/testing/test-client.ts'
import { around, eventsOf, register, start } from './support.ts'

const MIB = 1024 * 1024
const SOCKETS = 4
/** More than the kernel buffers of the connections, and no more than a connection may have unanswered. */
const REQUESTS = SOCKETS * 30
const BUDGET = 4 * MIB
/** The answer to a victim's first sync, and to a refused request. */
const SMALL = 1024

test('bytes in flight stay within the budget of the account, and a victim is served', async () => {
  await using server = await start({ answerBytesPerUser: BUDGET })
  const victim = await register(server, 'victim', '198.51.100.1')
  const attacker = await register(server, 'attacker', '203.0.113.1')
  const { userId, token } = attacker
  for (let n = 0; n < 16; n++) {
    const path = `${CLIENT}/user/${userId}/account_data/org.example.${n}`
    ok(await server.call('PUT', path, { token, body: { text: 'x'.repeat(65_000) } }))
  }
  const { answers } = server.context
  let most = 0
  let held = 0
  around(answers, 'hold', (hold) => {
    const release = hold()
    held++
    most = Math.max(most, answers.bytes)
    return release
  })
  const request = `GET ${SYNC} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n\r\n`
  const sockets = await Promise.all(Array.from({ length: SOCKETS }, () => openSocket(server)))
  for (const socket of sockets) socket.pause()
  for (let n = 0; n < REQUESTS; n++) {
    // One at a time: what the kernel takes of an answer is taken before the next one.
    const before = held
    sockets[n % SOCKETS]?.write(request)
    await until(() => held > before)
    await sync(server, victim)
  }
  assert.ok(most > BUDGET - 2 * MIB && most <= BUDGET + (REQUESTS + 1) * SMALL, `${most} bytes`)
  assert.ok((await eventsOf(server, 'request_limited')) > 0)
  for (const socket of sockets) socket.destroy()
  await until(() => answers.bytes === 0)
})
