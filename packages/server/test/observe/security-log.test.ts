/** The security log of a server (docs/reference/security-log.md): its events, their origin, and no secret in it. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { DEFAULT_CONFIG, DEFAULT_RATES } from '../../src/config/config.ts'
import { REPOSITORY, temporaryDirectory } from '@latchkey/testing/run-latchkey.ts'
import { claimNames, CLIENT, fallback, ids, keys, tryUpload, upload } from '@latchkey/testing/test-client.ts'
import { crossSigningBody, crossSigningPairs } from '@latchkey/testing/signing.ts'
import { type AnyJson, startTestServer } from '@latchkey/testing/test-server.ts'

const SECRET = 'correct horse battery staple'

function readLog(file: string): AnyJson[] {
  const text = readFileSync(file, 'utf8')
  return text === ''
    ? []
    : text
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line))
}

test('a heal is an entry of the log; a conflict after the heals of a day is an event, and refused', async () => {
  using directory = temporaryDirectory()
  const securityLog = join(directory.path, 'security.log')
  let now = Date.now()
  const pools = { ...DEFAULT_CONFIG.pools, healsPerDeviceAndDay: 1 }
  await using server = await startTestServer({ securityLog, pools }, { now: () => now })
  const alice = await server.login('alice', 'A')
  const statuses: number[] = []
  for (const family of ['1', '2', '2', '3', '3', '3']) {
    now += 2_500
    statuses.push((await tryUpload(server, alice, { one_time_keys: keys(['A'], family) })).status)
  }
  assert.deepEqual(statuses, [200, 400, 200, 400, 400, 400])
  const events = readLog(securityLog).filter(({ event }) => event === 'heals_exceeded')
  assert.equal(events.length, 2)
  const [{ userId, deviceId, address }] = events
  assert.deepEqual([userId, deviceId, address], ['@alice:test.example', 'A', '127.0.0.1'])
})

test('each event has a line with address, request ID, user and device, and no secret', async () => {
  using directory = temporaryDirectory()
  const securityLog = join(directory.path, 'security.log')
  const rates = { ...DEFAULT_RATES, claimPerTarget: { burst: 2, perSecond: 1e-9 } }
  const pools = { ...DEFAULT_CONFIG.pools, keysPerPool: 10 }
  await using server = await startTestServer({ securityLog, rates, pools })
  const tokens: string[] = []
  const note = (token: string): string => {
    tokens.push(token)
    return token
  }
  const events = async (run: () => Promise<unknown>): Promise<AnyJson[]> => {
    const before = readLog(securityLog).length
    await run()
    return readLog(securityLog).slice(before)
  }
  const logIn = (user: string, password: string, device = 'B') =>
    server.call('POST', `${CLIENT}/login`, {
      body: {
        type: 'm.login.password',
        identifier: { type: 'm.id.user', user },
        password,
        device_id: device,
      },
    })
  const auth = (password: string): object => ({
    type: 'm.login.password',
    identifier: { type: 'm.id.user', user: 'alice' },
    password,
  })

  const registered = await events(async () => {
    const body = { username: 'alice', password: SECRET, device_id: 'A', auth: { type: 'm.login.dummy' } }
    const answer = await server.call('POST', `${CLIENT}/register`, { body })
    assert.equal(answer.status, 200)
    note(answer.body.access_token)
  })
  const userId = '@alice:test.example'
  const of = ([line]: AnyJson[], ...names: string[]): AnyJson[] =>
    ['event', 'userId', ...names].map((name) => line[name])
  assert.deepEqual(of(registered), ['account_registered', userId])
  assert.equal(registered[0].address, '127.0.0.1')

  const wrong = await events(() => logIn('alice', `${SECRET}!`))
  assert.deepEqual(of(wrong), ['login_failed', userId])
  // A password typed where the user name belongs.
  const nobody = await events(() => logIn('hunter2', SECRET))
  assert.deepEqual(of(nobody), ['login_failed', undefined])

  const login = await events(async () => note((await logIn('alice', SECRET)).body.access_token))
  assert.deepEqual(of(login, 'deviceId'), ['login', userId, 'B'])
  const [tokenA = '', tokenB = ''] = tokens

  const unproved = await events(() =>
    server.call('POST', `${CLIENT}/delete_devices`, {
      token: tokenA,
      body: { devices: ['B'], auth: auth('no') },
    }),
  )
  assert.deepEqual(of(unproved, 'deviceId', 'route'), [
    'interactive_auth_failed',
    userId,
    'A',
    `${CLIENT}/delete_devices`,
  ])
  const challenged = await events(() =>
    server.call('POST', `${CLIENT}/delete_devices`, { token: tokenA, body: { devices: ['B'] } }),
  )
  assert.deepEqual(challenged, [], 'the first step of the authentication is not a failure')

  const changed = await events(() =>
    server.call('POST', `${CLIENT}/account/password`, {
      token: tokenA,
      body: { new_password: `${SECRET}2`, logout_devices: false, auth: auth(SECRET) },
    }),
  )
  assert.deepEqual(of(changed, 'devicesRemoved'), ['password_changed', userId, false])

  const removed = await events(() =>
    server.call('DELETE', `${CLIENT}/devices/B`, { token: tokenA, body: { auth: auth(`${SECRET}2`) } }),
  )
  assert.deepEqual(of(removed, 'devices', 'count'), ['devices_removed', userId, ['B'], 1])
  assert.equal((await server.call('GET', `${CLIENT}/account/whoami`, { token: tokenB })).status, 401)

  const sign = (body: object) =>
    server.call('POST', `${CLIENT}/keys/device_signing/upload`, { token: tokenA, body })
  assert.deepEqual(
    await events(() => sign(crossSigningBody(userId, crossSigningPairs()))),
    [],
    'the first keys replace none',
  )
  const replaced = await events(() =>
    sign({ ...crossSigningBody(userId, crossSigningPairs()), auth: auth(`${SECRET}2`) }),
  )
  assert.equal(of(replaced)[0], 'cross_signing_replaced')

  const alice = { userId, deviceId: 'A', token: tokenA }
  const evicted = await events(() =>
    upload(server, alice, { one_time_keys: keys(ids(12)), fallback_keys: fallback('F') }),
  )
  assert.deepEqual(of(evicted, 'count'), ['keys_evicted', userId, 2])
  const drained = await events(() => claimNames(server, alice, alice, 3))
  assert.deepEqual(of(drained, 'targetUserId', 'targetDeviceId', 'count'), [
    'claim_budget_exceeded',
    userId,
    userId,
    'A',
    1,
  ])

  const limited = await events(async () => {
    for (let n = 0; n < 30; n++) await logIn('nobody', SECRET)
  })
  const refusals = limited.filter(({ event }) => event === 'request_limited')
  assert.equal(refusals[0].route, `${CLIENT}/login`)
  assert.match(refusals[0].reason, /^Too many/)

  const out = await events(() => server.call('POST', `${CLIENT}/logout`, { token: tokenA }))
  assert.deepEqual(of(out, 'devices'), ['devices_removed', userId, ['A']])

  const text = readFileSync(securityLog, 'utf8')
  for (const secret of [SECRET, 'hunter2', ...tokens]) assert.ok(!text.includes(secret))
  const requestIds = readLog(securityLog).map(({ requestId }) => requestId)
  assert.equal(new Set(requestIds).size, requestIds.length)
})

test('every answer has a request ID of the server, which browsers may read', async () => {
  await using server = await startTestServer()
  const chosen = 'chosen-by-the-client'
  for (const [method, path, status] of [
    ['GET', '/_matrix/client/versions', 200],
    ['GET', `${CLIENT}/account/whoami`, 401],
    ['GET', '/no/such/path', 404],
    ['POST', '/_matrix/client/versions', 405],
    ['GET', '/_matrix/%zz', 400],
  ] as const) {
    const response = await fetch(server.url + path, { method, headers: { 'x-request-id': chosen } })
    assert.equal(response.status, status, path)
    assert.match(response.headers.get('x-request-id') ?? '', /^[0-9a-f-]{36}$/, path)
    assert.match(response.headers.get('access-control-expose-headers') ?? '', /X-Request-Id/, path)
  }
})

test('the filter for fail2ban in the guide finds the address in real lines, and in no text of a client', async () => {
  using directory = temporaryDirectory()
  const securityLog = join(directory.path, 'security.log')
  await using server = await startTestServer({ securityLog, trustProxy: 1 })
  const guide = readFileSync(join(REPOSITORY, 'docs/guides/operating.md'), 'utf8')
  const pattern = /^failregex = (.*)$/m.exec(guide)?.[1] ?? assert.fail('no failregex in the guide')
  // fail2ban's own expression for <HOST>, without host names.
  const failregex = new RegExp(pattern.replace('<HOST>', String.raw`(?<host>[0-9a-fA-F.:]+)`))
  const attempt = (address: string, user: string) =>
    server.call('POST', `${CLIENT}/login`, {
      headers: { 'x-forwarded-for': address },
      body: { type: 'm.login.password', user, password: 'wrong' },
    })
  await server.login('alice', 'A')
  await attempt('192.0.2.1', 'alice')
  await attempt('2001:db8::7', 'nobody')
  const forged = '"event":"login_failed","address":"198.51.100.1"'
  const { token } = await server.login('bob', forged)
  assert.equal((await server.call('POST', `${CLIENT}/logout`, { token })).status, 200)
  const lines = readFileSync(securityLog, 'utf8').trimEnd().split('\n')
  assert.ok(lines.some((line) => line.includes('198.51.100.1')))
  const found = lines.flatMap((line) => failregex.exec(line)?.groups?.['host'] ?? [])
  assert.deepEqual(found, ['192.0.2.1', '2001:db8::7'])
  const times = lines.map((line) => /"time":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)/.exec(line)?.[1])
  assert.ok(times.every((time) => time !== undefined))
})
