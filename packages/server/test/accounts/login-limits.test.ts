/**
 * Limits of logins with the default rates (issue 11, C5): strangers use up neither an account's logins nor those of the
 * server, and a refusal by address costs no parse. A proxy reports the addresses.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DEFAULT_RATES } from '../../src/config/config.ts'
import { Passwords } from '../../src/accounts/passwords.ts'
import { startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'

const V3 = '/_matrix/client/v3'
const HOME = '198.51.100.1'

type Answer = Awaited<ReturnType<TestServer['call']>>

function start(nowMs = Date.now()): Promise<TestServer> {
  return startTestServer({ rates: DEFAULT_RATES, trustProxy: 1 }, { now: () => nowMs })
}

function login(
  server: TestServer,
  address: string,
  user: string,
  { password = 'password', token }: { readonly password?: string; readonly token?: string } = {},
): Promise<Answer> {
  const body = { type: 'm.login.password', identifier: { type: 'm.id.user', user }, password }
  const headers = { 'x-forwarded-for': address }
  return server.call('POST', `${V3}/login`, { body, headers, ...(token !== undefined && { token }) })
}

async function register(server: TestServer, address: string, username: string): Promise<string> {
  const body = { username, password: 'password', auth: { type: 'm.login.dummy' } }
  const answer = await server.call('POST', `${V3}/register`, {
    body,
    headers: { 'x-forwarded-for': address },
  })
  assert.equal(answer.status, 200)
  return answer.body.access_token
}

/** Addresses of one /48, each in a /56 of its own. */
function addressIn48(n: number): string {
  return `2001:db8:5:${(n * 256).toString(16)}::1`
}

function counts(answers: readonly Answer[]): Record<number, number> {
  const found: Record<number, number> = {}
  for (const { status } of answers) found[status] = (found[status] ?? 0) + 1
  return found
}

test('130 tries from one /48 at one account are mostly refused, and the owner still logs in', async () => {
  await using server = await start()
  await register(server, HOME, 'alice')
  const tries = []
  for (let n = 0; n < 130; n++)
    tries.push(await login(server, addressIn48(n), 'alice', { password: 'guess' }))
  // Four times the burst of one address and account.
  assert.deepEqual(counts(tries), { 403: 40, 429: 90 })
  assert.equal((await login(server, HOME, 'alice')).status, 200)
  assert.equal((await login(server, '203.0.113.7', 'alice')).status, 200)
})

test('an owner whose account is under attack from everywhere logs in from a known network or with a token', async () => {
  await using server = await start()
  const token = await register(server, HOME, 'alice')
  const other = await register(server, '198.51.100.2', 'mallory')
  const tries = []
  for (let n = 0; n < 110; n++)
    tries.push(await login(server, `203.0.113.${n}`, 'alice', { password: 'guess' }))
  assert.deepEqual(counts(tries), { 403: 100, 429: 10 })
  assert.equal((await login(server, HOME, 'alice')).status, 200)
  assert.equal((await login(server, '192.0.2.1', 'alice')).status, 429)
  assert.equal((await login(server, '192.0.2.1', 'alice', { token: other })).status, 429)
  assert.equal((await login(server, '192.0.2.1', 'alice', { token })).status, 200)
})

test('a flood of logins from one /48 keeps no one else out, also not in the same /48', async () => {
  await using server = await start()
  await register(server, HOME, 'alice')
  const neighbour = addressIn48(0xff)
  await register(server, neighbour, 'bob')
  const flood = []
  for (let n = 0; n < 120; n++) flood.push(login(server, addressIn48(n), `unknown${n}`))
  const answers = await Promise.all(flood)
  assert.ok((counts(answers)[429] ?? 0) >= 40)
  for (let n = 0; n < 10; n++) assert.equal((await login(server, HOME, 'alice')).status, 200)
  assert.equal((await login(server, neighbour, 'bob')).status, 200)
})

test('a login or registration refused by address is refused before its body is parsed', async () => {
  await using server = await start()
  const call = (path: string, address: string): Promise<Answer> =>
    server.call('POST', V3 + path, { body: '{ not JSON', headers: { 'x-forwarded-for': address } })
  assert.equal((await call('/login', '192.0.2.9')).status, 400)
  for (let n = 0; n < 20; n++) await login(server, '192.0.2.9', `unknown${n}`)
  assert.equal((await call('/login', '192.0.2.9')).status, 429)
  for (let n = 0; n < 20; n++) assert.equal((await call('/register', '192.0.2.9')).status, 400)
  assert.equal((await call('/register', '192.0.2.9')).status, 429)
})

test('bodies from a network where an account is known are read as often again, and not oftener', async () => {
  await using server = await start()
  await register(server, '192.0.2.9', 'mallory')
  for (let n = 0; n < 20; n++) await login(server, '192.0.2.9', `unknown${n}`)
  const statuses = []
  for (let n = 0; n < 25; n++) {
    const headers = { 'x-forwarded-for': '192.0.2.9' }
    statuses.push((await server.call('POST', `${V3}/login`, { body: '{ not JSON', headers })).status)
  }
  assert.deepEqual(
    [statuses.filter((status) => status === 400).length, statuses.filter((status) => status === 429).length],
    [20, 5],
  )
})

test('known clients are checked before others that wait, however many those are', async () => {
  const passwords = new Passwords()
  const stored = await passwords.hash('password')
  const order: string[] = []
  const strangers = Array.from({ length: 202 }, async (_, n) => {
    await passwords.verify('guess', stored)
    order.push(`stranger ${n}`)
  })
  const owner = passwords.verify('password', stored, 'owner').then((right) => order.push(`owner ${right}`))
  await assert.rejects(passwords.verify('guess', stored), { errcode: 'M_LIMIT_EXCEEDED' })
  await owner
  assert.ok(order.indexOf('owner true') <= 4, order.join(', '))
  await Promise.all(strangers)
})
