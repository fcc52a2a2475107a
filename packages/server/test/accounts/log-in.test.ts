/** Accounts and sessions over HTTP: registration, login, logout, passwords. */
import assert from 'node:assert/strict'
import type { Socket } from 'node:net'
import test from 'node:test'
import type { DeviceId, UserId } from '@latchkey/protocol'
import { hashToken } from '../../src/accounts/access-token.ts'
import { logIn } from '../../src/accounts/log-in.ts'
import { createRegistrationToken } from '../../src/accounts/registration-token.ts'
import { DEFAULT_RATES } from '../../src/config/config.ts'
import { openSocket, type RawAnswer, readToEnd } from '../support/raw-http.ts'
import { startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'

const V3 = '/_matrix/client/v3'
const BEHIND_PROXY = { trustProxy: 1 }
type HalfSent = { readonly socket: Socket; readonly answer: Promise<RawAnswer> }
const DUMMY = { type: 'm.login.dummy' }

function passwordLogin(user: string, password = 'password'): object {
  return { type: 'm.login.password', identifier: { type: 'm.id.user', user }, password }
}

function passwordAuth(user: string, password = 'password', session?: string): object {
  return { ...passwordLogin(user, password), ...(session !== undefined && { session }) }
}

/** Returns 200 for a valid access token, 401 for any other. */
async function statusOf(server: TestServer, token: string): Promise<number> {
  return (await server.call('GET', `${V3}/account/whoami`, { token })).status
}

function sorted(answers: readonly { readonly status: number }[]): number[] {
  return answers.map((answer) => answer.status).toSorted((a, b) => a - b)
}

test('registration without auth is challenged; its session then creates the account and logs in', async () => {
  await using server = await startTestServer()
  const body = { username: 'Alice', password: 'password', device_id: 'PHONE' }
  const challenge = await server.call('POST', `${V3}/register`, { body })
  assert.equal(challenge.status, 401)
  const { session, ...rest } = challenge.body
  assert.deepEqual(rest, { flows: [{ stages: ['m.login.dummy'] }], params: {}, completed: [] })

  const made = await server.call('POST', `${V3}/register`, { body: { ...body, auth: { ...DUMMY, session } } })
  assert.equal(made.status, 200)
  const { access_token: token, ...account } = made.body
  assert.deepEqual(account, {
    user_id: '@alice:test.example',
    device_id: 'PHONE',
    home_server: 'test.example',
  })
  assert.match(token, /^lk_/)
  const whoami = await server.call('GET', `${V3}/account/whoami`, { token })
  assert.deepEqual(whoami.body, { user_id: '@alice:test.example', device_id: 'PHONE', is_guest: false })
})

test('registration with an empty body returns its flows', async () => {
  await using server = await startTestServer()
  const { status, body } = await server.call('POST', `${V3}/register`, { body: {} })
  assert.equal(status, 401)
  assert.deepEqual(body.flows, [{ stages: ['m.login.dummy'] }])
})

test('an auth without a session registers at once, and inhibit_login omits the access token', async () => {
  await using server = await startTestServer()
  const { status, body } = await server.call('POST', `${V3}/register`, {
    body: { username: 'alice', password: 'password', inhibit_login: true, auth: DUMMY },
  })
  assert.equal(status, 200)
  assert.deepEqual(body, { user_id: '@alice:test.example', home_server: 'test.example' })
})

test('registration without a user name generates one', async () => {
  await using server = await startTestServer()
  const { body } = await server.call('POST', `${V3}/register`, {
    body: { password: 'password', auth: DUMMY },
  })
  assert.match(body.user_id, /^@u[0-9a-f]{16}:test\.example$/)
  assert.match(body.device_id, /^[A-Z]{10}$/)
})

test('unusable user names and passwords are refused before the challenge', async () => {
  await using server = await startTestServer()
  await server.login('alice')
  for (const [body, errcode] of [
    [{ username: 'alice', password: 'password' }, 'M_USER_IN_USE'],
    [{ username: 'ALICE', password: 'password' }, 'M_USER_IN_USE'],
    [{ username: 'al ice', password: 'password' }, 'M_INVALID_USERNAME'],
    [{ username: 'bob', password: 'passwor' }, 'M_WEAK_PASSWORD'],
    [{ username: 'bob', password: 'p'.repeat(513) }, 'M_INVALID_PARAM'],
    [{ username: 'bob', password: 'password', device_id: '' }, 'M_INVALID_PARAM'],
    [{ username: 'bob', password: 'password', device_id: '*' }, 'M_INVALID_PARAM'],
    [{ username: 'bob', auth: DUMMY }, 'M_MISSING_PARAM'],
    [{ username: 7 }, 'M_BAD_JSON'],
    [{ auth: 'dummy', password: 'password' }, 'M_BAD_JSON'],
  ] as const) {
    const answer = await server.call('POST', `${V3}/register`, { body })
    assert.deepEqual([answer.status, answer.body.errcode], [400, errcode], JSON.stringify(body))
  }
})

test('two concurrent registrations of one name create one account', async () => {
  await using server = await startTestServer()
  const body = { username: 'alice', password: 'password', auth: DUMMY }
  const answers = await Promise.all(
    Array.from({ length: 4 }, () => server.call('POST', `${V3}/register`, { body })),
  )
  assert.deepEqual(sorted(answers), [200, 400, 400, 400])
})

test('guest registration is refused, and so is any registration when registration is closed', async () => {
  await using server = await startTestServer({ registration: 'closed' })
  const guest = await server.call('POST', `${V3}/register?kind=guest`, { body: {} })
  assert.deepEqual([guest.status, guest.body.errcode], [403, 'M_GUEST_ACCESS_FORBIDDEN'])
  for (const [method, path] of [
    ['POST', '/register'],
    ['GET', '/register/available?username=bob'],
  ] as const) {
    const { status, body } = await server.call(method, V3 + path)
    assert.deepEqual([status, body.errcode], [403, 'M_FORBIDDEN'], path)
  }
})

test('a registration token creates as many accounts as it allows', async () => {
  await using server = await startTestServer({ registration: 'token' })
  const { accounts } = server.context.store
  const token = await createRegistrationToken({ accounts, now: Date.now }, { usesAllowed: 1 })
  const attempt = (username: string, auth: object): ReturnType<typeof server.call> =>
    server.call('POST', `${V3}/register`, { body: { username, password: 'password', auth } })

  const dummy = await attempt('alice', DUMMY)
  assert.deepEqual([dummy.status, dummy.body.errcode], [401, 'M_INVALID_PARAM'])
  assert.deepEqual(dummy.body.flows, [{ stages: ['m.login.registration_token'] }])
  const wrong = await attempt('alice', { type: 'm.login.registration_token', token: 'guess' })
  assert.deepEqual([wrong.status, wrong.body.errcode], [401, 'M_FORBIDDEN'])
  const none = await attempt('alice', { type: 'm.login.registration_token' })
  assert.deepEqual([none.status, none.body.errcode], [400, 'M_MISSING_PARAM'])

  // Both may pass the stage while the token still has a use left, but only one creates an account.
  const answers = await Promise.all(
    ['alice', 'bob'].map((name) => attempt(name, { type: 'm.login.registration_token', token })),
  )
  assert.deepEqual(sorted(answers), [200, 401])
  const spent = await attempt('carol', { type: 'm.login.registration_token', token })
  assert.deepEqual([spent.status, spent.body.errcode], [401, 'M_FORBIDDEN'])
})

test('a registration token expires', async () => {
  let nowMs = 1_000_000
  await using server = await startTestServer({ registration: 'token' }, { now: () => nowMs })
  const { accounts } = server.context.store
  const token = await createRegistrationToken({ accounts, now: () => nowMs }, { expiresTs: 2_000_000 })
  const auth = { type: 'm.login.registration_token', token }
  const attempt = async (username: string): Promise<number> =>
    (await server.call('POST', `${V3}/register`, { body: { username, password: 'password', auth } })).status
  assert.equal(await attempt('alice'), 200)
  nowMs = 2_000_000
  assert.equal(await attempt('bob'), 401)
})

test('register/available distinguishes available, taken and invalid names', async () => {
  await using server = await startTestServer()
  await server.login('alice')
  for (const [name, status, errcode] of [
    ['bob', 200, undefined],
    ['alice', 400, 'M_USER_IN_USE'],
    ['b:b', 400, 'M_INVALID_USERNAME'],
  ] as const) {
    const answer = await server.call('GET', `${V3}/register/available?username=${name}`)
    assert.deepEqual([answer.status, answer.body.errcode], [status, errcode], name)
  }
  assert.equal((await server.call('GET', `${V3}/register/available`)).body.errcode, 'M_MISSING_PARAM')
})

test('login accepts a localpart or a full user ID, in any case, as an identifier or as the legacy member', async () => {
  await using server = await startTestServer()
  await server.login('alice')
  const flows = await server.call('GET', `${V3}/login`)
  assert.deepEqual(flows.body, { flows: [{ type: 'm.login.password' }] })
  for (const body of [
    passwordLogin('alice'),
    passwordLogin('ALICE'),
    passwordLogin('@Alice:test.example'),
    { type: 'm.login.password', user: 'alice', password: 'password' },
    { ...passwordLogin('alice'), device_id: null, initial_device_display_name: null },
    { type: 'm.login.password', identifier: null, user: 'alice', password: 'password' },
  ]) {
    for (const version of ['r0', 'v3']) {
      const answer = await server.call('POST', `/_matrix/client/${version}/login`, { body })
      assert.equal(answer.status, 200)
      assert.equal(answer.body.user_id, '@alice:test.example')
      assert.equal(await statusOf(server, answer.body.access_token), 200)
    }
  }
})

test('an unknown user and a wrong password get the same answer', async () => {
  await using server = await startTestServer()
  await server.login('alice')
  const [unknown, foreign, wrong, empty] = await Promise.all(
    [
      passwordLogin('bob'),
      passwordLogin('@alice:elsewhere.example'),
      passwordLogin('alice', 'wrong'),
      passwordLogin('alice', ''),
    ].map((body) => server.call('POST', `${V3}/login`, { body })),
  )
  assert.deepEqual([unknown?.status, unknown?.body.errcode], [403, 'M_FORBIDDEN'])
  for (const answer of [foreign, wrong, empty]) assert.deepEqual(answer, unknown)
})

test('a malformed login is refused with the reason', async () => {
  await using server = await startTestServer()
  await server.login('alice')
  const good = passwordLogin('alice')
  for (const [body, errcode] of [
    [{}, 'M_MISSING_PARAM'],
    [{ type: 'm.login.token', token: 'x' }, 'M_INVALID_PARAM'],
    [{ type: 'm.login.password', password: 'password' }, 'M_MISSING_PARAM'],
    [{ ...good, password: undefined }, 'M_MISSING_PARAM'],
    [{ ...good, password: 7 }, 'M_BAD_JSON'],
    [{ ...good, identifier: { type: 'm.id.phone', user: 'alice' } }, 'M_INVALID_PARAM'],
    [{ ...good, identifier: null }, 'M_MISSING_PARAM'],
    [{ ...good, device_id: '' }, 'M_INVALID_PARAM'],
    [{ ...good, device_id: '*' }, 'M_INVALID_PARAM'],
    [{ ...good, device_id: 'ä'.repeat(128) }, 'M_INVALID_PARAM'],
    [{ ...good, initial_device_display_name: 'n'.repeat(101) }, 'M_TOO_LARGE'],
  ] as const) {
    const answer = await server.call('POST', `${V3}/login`, { body })
    assert.deepEqual([answer.status, answer.body.errcode], [400, errcode], JSON.stringify(body))
  }
})

test('logins to one account are limited per address, correct passwords included; other accounts are not', async () => {
  let nowMs = Date.now()
  const rates = { ...DEFAULT_RATES, loginPerAccount: { burst: 3, perSecond: 1 } }
  await using server = await startTestServer({ rates }, { now: () => nowMs })
  await server.login('alice')
  await server.login('bob')
  const tryLogin = (user: string, password?: string): ReturnType<typeof server.call> =>
    server.call('POST', `${V3}/login`, { body: passwordLogin(user, password) })
  // Concurrent attempts do not evade the limit: the first login used one of three.
  const tries = await Promise.all(Array.from({ length: 4 }, () => tryLogin('alice', 'wrong')))
  assert.deepEqual(sorted(tries), [403, 403, 429, 429])
  const refused = await tryLogin('ALICE')
  assert.deepEqual([refused.status, refused.body.errcode], [429, 'M_LIMIT_EXCEEDED'])
  assert.ok(refused.body.retry_after_ms > 0)
  assert.equal((await tryLogin('bob')).status, 200)
  nowMs += refused.body.retry_after_ms
  assert.equal((await tryLogin('alice')).status, 200)
})

/** A login from the given address, as a proxy reports it. */
function loginFrom(server: TestServer, ip: string, password: string): ReturnType<TestServer['call']> {
  const headers = { 'x-forwarded-for': ip }
  return server.call('POST', `${V3}/login`, { body: passwordLogin('alice', password), headers })
}

test('password guesses from one address lock out neither the owner nor their password confirmations', async () => {
  const rates = { ...DEFAULT_RATES, loginPerAccount: { burst: 2, perSecond: 0.001 } }
  await using server = await startTestServer({ rates, ...BEHIND_PROXY })
  const { token } = await server.login('alice', 'PHONE')
  const guesses = []
  for (let i = 0; i < 4; i++) guesses.push((await loginFrom(server, '203.0.113.9', 'guess')).status)
  assert.deepEqual(guesses, [403, 403, 429, 429])
  assert.equal((await loginFrom(server, '198.51.100.1', 'password')).status, 200)
  const body = { devices: [], auth: passwordAuth('alice') }
  assert.equal((await server.call('POST', `${V3}/delete_devices`, { token, body })).status, 200)
})

test('password guesses from many addresses are limited per account; confirmations still work', async () => {
  const rates = { ...DEFAULT_RATES, loginPerAccountInAll: { burst: 3, perSecond: 0.001 } }
  await using server = await startTestServer({ rates, ...BEHIND_PROXY })
  const { token } = await server.login('alice', 'PHONE')
  const guesses = []
  for (let i = 1; i < 5; i++) guesses.push((await loginFrom(server, `203.0.113.${i}`, 'guess')).status)
  assert.deepEqual(guesses, [403, 403, 429, 429])
  const body = { devices: [], auth: passwordAuth('alice') }
  assert.equal((await server.call('POST', `${V3}/delete_devices`, { token, body })).status, 200)
})

test('logins and registrations are limited per address', async () => {
  const slow = { burst: 2, perSecond: 0.001 }
  const rates = { ...DEFAULT_RATES, loginPerAddress: slow, registrationPerAddress: slow }
  await using server = await startTestServer({ rates })
  const statuses = async (path: string, body: object): Promise<number[]> => {
    const found = []
    for (let i = 0; i < 3; i++) found.push((await server.call('POST', V3 + path, { body })).status)
    return found
  }
  assert.deepEqual(await statuses('/login', passwordLogin('nobody')), [403, 403, 429])
  assert.deepEqual(await statuses('/register', { password: 'password', auth: DUMMY }), [200, 200, 429])
  await using other = await startTestServer({ rates })
  const flows = []
  for (let i = 0; i < 3; i++) flows.push((await other.call('POST', `${V3}/register`, { body: {} })).status)
  assert.deepEqual(flows, [401, 401, 429])
})

test('a login on an existing device keeps the device and invalidates its previous token', async () => {
  await using server = await startTestServer()
  const first = await server.login('alice', 'PHONE')
  assert.equal(await statusOf(server, first.token), 200)
  const other = await server.login('alice', 'TABLET')
  const second = await server.login('alice', 'PHONE')
  assert.deepEqual(
    await Promise.all([first, second, other].map((d) => statusOf(server, d.token))),
    [401, 200, 200],
  )
  const { body } = await server.call('GET', `${V3}/devices`, { token: second.token })
  assert.deepEqual(
    body.devices.map((device: { device_id: string }) => device.device_id),
    ['PHONE', 'TABLET'],
  )
})

test('an account at its device limit can log in again after a logout', async () => {
  await using server = await startTestServer()
  const sizes = { ...server.context.config.sizes, devicesPerUser: 2 }
  await using small = await startTestServer({ sizes })
  const phone = await small.login('alice', 'PHONE')
  await small.login('alice', 'TABLET')
  await small.login('alice', 'TABLET')
  const body = { ...passwordLogin('alice'), device_id: 'LAPTOP' }
  const refused = await small.call('POST', `${V3}/login`, { body })
  assert.deepEqual([refused.status, refused.body.errcode], [400, 'M_INVALID_PARAM'])
  await small.call('POST', `${V3}/logout`, { token: phone.token })
  assert.equal((await small.call('POST', `${V3}/login`, { body })).status, 200)
  await assert.rejects(small.login('alice', 'PHONE'), /the most it may have/)
})

test('logout ends one session and removes its device; logout/all ends every session of the user', async () => {
  await using server = await startTestServer()
  const [phone, tablet, laptop, bob] = [
    await server.login('alice', 'PHONE'),
    await server.login('alice', 'TABLET'),
    await server.login('alice', 'LAPTOP'),
    await server.login('bob'),
  ]
  const out = await server.call('POST', `${V3}/logout`, { token: phone.token })
  assert.deepEqual(out, { status: 200, body: {} })
  const again = await server.call('POST', `${V3}/logout`, { token: phone.token })
  assert.deepEqual([again.status, again.body.errcode], [401, 'M_UNKNOWN_TOKEN'])
  assert.equal(await statusOf(server, tablet.token), 200)
  const all = await server.call('POST', `/_matrix/client/r0/logout/all`, { token: tablet.token, body: {} })
  assert.deepEqual(all, { status: 200, body: {} })
  const tokens = [tablet, laptop, bob].map((device) => device.token)
  assert.deepEqual(await Promise.all(tokens.map((token) => statusOf(server, token))), [401, 401, 200])
})

test('sessions, passwords and a logout survive a restart', async () => {
  await using server = await startTestServer()
  const phone = await server.login('alice', 'PHONE')
  const tablet = await server.login('alice', 'TABLET')
  await server.call('POST', `${V3}/logout`, { token: phone.token })
  await server.close()
  await using again = await startTestServer({ dataDir: server.dataDir })
  assert.equal(await statusOf(again, phone.token), 401)
  assert.equal(await statusOf(again, tablet.token), 200)
  assert.equal((await again.call('POST', `${V3}/login`, { body: passwordLogin('alice') })).status, 200)
})

test('a password change invalidates the old password, and removes other devices unless asked not to', async () => {
  await using server = await startTestServer()
  const phone = await server.login('alice', 'PHONE')
  const tablet = await server.login('alice', 'TABLET')
  const change = (body: object): ReturnType<typeof server.call> =>
    server.call('POST', `${V3}/account/password`, { token: phone.token, body })

  const weak = await change({ new_password: 'short', auth: passwordAuth('alice') })
  assert.equal(weak.body.errcode, 'M_WEAK_PASSWORD')
  const challenge = await change({ new_password: 'new password' })
  assert.equal(challenge.status, 401)
  assert.deepEqual(challenge.body.flows, [{ stages: ['m.login.password'] }])

  const keep = await change({
    new_password: 'new password',
    logout_devices: false,
    auth: passwordAuth('@alice:test.example', 'password', challenge.body.session),
  })
  assert.deepEqual(keep, { status: 200, body: {} })
  assert.equal(await statusOf(server, tablet.token), 200)
  const old = await server.call('POST', `${V3}/login`, { body: passwordLogin('alice') })
  assert.equal(old.status, 403)

  const end = await change({ new_password: 'newer password', auth: passwordAuth('alice', 'new password') })
  assert.equal(end.status, 200)
  assert.equal(await statusOf(server, tablet.token), 401)
  assert.equal(await statusOf(server, phone.token), 200)
  const body = passwordLogin('alice', 'newer password')
  assert.equal((await server.call('POST', `${V3}/login`, { body })).status, 200)
})

test('a login does not open a session if the password changed after it was checked', async () => {
  await using server = await startTestServer()
  const { token } = await server.login('alice', 'PHONE')
  const { store } = server.context
  const { accounts } = store
  const asChecked = await accounts.find('@alice:test.example' as UserId)
  assert.ok(asChecked)
  const body = { new_password: 'new password', auth: passwordAuth('alice') }
  assert.equal((await server.call('POST', `${V3}/account/password`, { token, body })).status, 200)
  const stale = logIn(
    { ...server.context, accounts },
    asChecked,
    { deviceId: 'THIEF' as DeviceId, refreshable: false },
    '127.0.0.1',
  )
  await assert.rejects(stale, { status: 403, errcode: 'M_FORBIDDEN' })
  const { body: list } = await server.call('GET', `${V3}/devices`, { token })
  assert.equal(list.devices.length, 1)
})

test('a request whose session ends while its body arrives changes nothing', async () => {
  await using server = await startTestServer()
  const phone = await server.login('alice', 'PHONE')
  const thief = await server.login('alice', 'THIEF')
  const begin = async (path: string, length: number): Promise<HalfSent> => {
    const socket = await openSocket(server)
    socket.write(
      `POST ${V3}${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${thief.token}\r\n` +
        `Connection: close\r\nContent-Length: ${length}\r\n\r\n{`,
    )
    return { socket, answer: readToEnd(socket) }
  }
  const claim = JSON.stringify({ one_time_keys: { [phone.userId]: { PHONE: 'signed_curve25519' } } })
  const requests = [
    [await begin('/logout/all', 2), '}'],
    [await begin('/keys/claim', claim.length), claim.slice(1)],
  ] as const
  // An answer to a later request shows that the server has read the earlier request heads.
  assert.equal(await statusOf(server, phone.token), 200)
  const body = { new_password: 'new password', auth: passwordAuth('alice') }
  assert.equal(
    (await server.call('POST', `${V3}/account/password`, { token: phone.token, body })).status,
    200,
  )
  for (const [{ socket, answer }, rest] of requests) {
    socket.write(rest)
    const { status, text } = await answer
    assert.deepEqual([status, JSON.parse(text).errcode], [401, 'M_UNKNOWN_TOKEN'])
  }
  assert.equal(await statusOf(server, phone.token), 200)
})

test('a write of a session that has ended is refused inside the transaction', async () => {
  await using server = await startTestServer()
  const phone = await server.login('alice', 'PHONE')
  const thief = await server.login('alice', 'THIEF')
  const { accounts, devices, sync } = server.context.store
  const session = await accounts.session(hashToken(thief.token))
  assert.ok(session)
  await server.call('POST', `${V3}/logout`, { token: thief.token })
  const bob = '@bob:test.example' as UserId
  for (const write of [
    () => devices.remove(session, ['PHONE' as DeviceId], Date.now()),
    () => devices.removeAll(session, Date.now()),
    () => devices.rename(session, 'PHONE' as DeviceId, 'mine'),
    () => devices.track(session, [bob]),
    () => sync.putFilter(session, '{"n":1}'),
    () => sync.putAccountData(session, 'org.example', '{}'),
  ]) {
    await assert.rejects(write(), { status: 401, errcode: 'M_UNKNOWN_TOKEN' }, String(write))
  }
  const { body } = await server.call('GET', `${V3}/devices`, { token: phone.token })
  assert.deepEqual(
    body.devices.map((device: { display_name: string }) => device.display_name),
    [''],
  )
})
