/** Access tokens that expire, and refresh tokens (accounts/refresh-tokens.ts). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type AnyJson, startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'

const V3 = '/_matrix/client/v3'
const LIFETIME = 5 * 60_000

type Pair = { readonly access_token: string; readonly refresh_token: string; readonly expires_in_ms: number }

/** A server whose access tokens expire, its clock, and Alice's account. */
async function start(): Promise<{ server: TestServer; later: (ms: number) => void }> {
  let nowMs = 1_700_000_000_000
  const server = await startTestServer({ accessTokenLifetimeMs: LIFETIME }, { now: () => nowMs })
  await server.login('alice', 'OTHER')
  return { server, later: (ms) => void (nowMs += ms) }
}

async function login(server: TestServer, wantsRefresh?: boolean): Promise<AnyJson> {
  const body = {
    type: 'm.login.password',
    identifier: { type: 'm.id.user', user: 'alice' },
    password: 'password',
    device_id: 'PHONE',
    ...(wantsRefresh !== undefined && { refresh_token: wantsRefresh }),
  }
  const answer = await server.call('POST', `${V3}/login`, { body })
  assert.equal(answer.status, 200)
  return answer.body
}

function refresh(server: TestServer, token: string): ReturnType<TestServer['call']> {
  return server.call('POST', `${V3}/refresh`, { body: { refresh_token: token } })
}

async function refreshed(server: TestServer, token: string): Promise<Pair> {
  const { status, body } = await refresh(server, token)
  assert.equal(status, 200, JSON.stringify(body))
  return body
}

async function statusOf(server: TestServer, token: string): Promise<number> {
  return (await server.call('GET', `${V3}/account/whoami`, { token })).status
}

test('an expired token is refused with soft_logout, and refreshed on the same device', async () => {
  const { server, later } = await start()
  await using _ = server
  const first: Pair = await login(server, true)
  assert.equal(first.expires_in_ms, LIFETIME)
  later(LIFETIME - 1)
  assert.equal(await statusOf(server, first.access_token), 200)
  later(1)
  const expired = await server.call('GET', `${V3}/account/whoami`, { token: first.access_token })
  assert.deepEqual(
    [expired.status, expired.body.errcode, expired.body.soft_logout],
    [401, 'M_UNKNOWN_TOKEN', true],
  )
  const second = await refreshed(server, first.refresh_token)
  assert.deepEqual(Object.keys(second).sort(), ['access_token', 'expires_in_ms', 'refresh_token'])
  const { body } = await server.call('GET', `${V3}/account/whoami`, { token: second.access_token })
  assert.equal(body.device_id, 'PHONE')
})

test('the old tokens are valid until a new one is used, and a lost answer is refreshed again', async () => {
  const { server } = await start()
  await using _ = server
  const first: Pair = await login(server, true)
  const lost = await refreshed(server, first.refresh_token)
  const second = await refreshed(server, first.refresh_token)
  assert.equal(await statusOf(server, first.access_token), 200)
  assert.equal(await statusOf(server, lost.access_token), 401)
  assert.equal((await refresh(server, lost.refresh_token)).status, 401)
  assert.equal(await statusOf(server, second.access_token), 200)
  assert.equal(await statusOf(server, first.access_token), 401)
  const reused = await refresh(server, first.refresh_token)
  assert.deepEqual([reused.status, reused.body.errcode], [401, 'M_UNKNOWN_TOKEN'])
  assert.equal(await statusOf(server, second.access_token), 200)
})

test('a refresh with an unused refresh token ends the tokens that it replaced', async () => {
  const { server } = await start()
  await using _ = server
  const first: Pair = await login(server, true)
  const second = await refreshed(server, first.refresh_token)
  const third = await refreshed(server, second.refresh_token)
  assert.equal(await statusOf(server, first.access_token), 401)
  assert.equal((await refresh(server, first.refresh_token)).status, 401)
  assert.equal(await statusOf(server, second.access_token), 200)
  assert.equal(await statusOf(server, third.access_token), 200)
  assert.equal(await statusOf(server, second.access_token), 401)
})

test('logout, removal of the device and a new login on it end both tokens', async () => {
  const { server } = await start()
  await using _ = server
  const { token } = await server.login('alice', 'ADMIN')
  const ends: readonly ((pair: Pair) => Promise<unknown>)[] = [
    ({ access_token }) => server.call('POST', `${V3}/logout`, { token: access_token }),
    () => {
      const auth = {
        type: 'm.login.password',
        identifier: { type: 'm.id.user', user: 'alice' },
        password: 'password',
      }
      return server.call('DELETE', `${V3}/devices/PHONE`, { token, body: { auth } })
    },
    () => login(server),
  ]
  for (const end of ends) {
    const first: Pair = await login(server, true)
    const second = await refreshed(server, first.refresh_token)
    await end(first)
    for (const { access_token } of [first, second]) assert.equal(await statusOf(server, access_token), 401)
    for (const { refresh_token } of [first, second])
      assert.equal((await refresh(server, refresh_token)).status, 401)
  }
})

test('a client that does not ask gets no refresh token; without a lifetime no client does', async () => {
  const { server, later } = await start()
  await using _ = server
  const { access_token, refresh_token, expires_in_ms } = await login(server)
  assert.deepEqual([refresh_token, expires_in_ms], [undefined, LIFETIME])
  later(LIFETIME)
  assert.equal(await statusOf(server, access_token), 401)
  await using lasting = await startTestServer()
  await lasting.login('alice')
  const body = await login(lasting, true)
  assert.deepEqual([body.refresh_token, body.expires_in_ms], [undefined, undefined])
})

test('a registration gives a refresh token, and the same answer again', async () => {
  const { server } = await start()
  await using _ = server
  const body = { username: 'bob', password: 'password', refresh_token: true }
  const { session } = (await server.call('POST', `${V3}/register`, { body })).body
  const auth = { type: 'm.login.dummy', session }
  const first = await server.call('POST', `${V3}/register`, { body: { auth } })
  assert.deepEqual(await server.call('POST', `${V3}/register`, { body: { auth } }), first)
  const next = await refreshed(server, first.body.refresh_token)
  assert.equal(await statusOf(server, next.access_token), 200)
})

test('of racing refreshes with one token, one pair stays valid', async () => {
  const { server } = await start()
  await using _ = server
  const first: Pair = await login(server, true)
  const pairs = await Promise.all(Array.from({ length: 8 }, () => refreshed(server, first.refresh_token)))
  const { store } = server.context
  const { hashToken } = await import('../../src/accounts/access-token.ts')
  const valid = []
  for (const { access_token } of pairs)
    if ((await store.accounts.session(hashToken(access_token))) !== undefined) valid.push(access_token)
  assert.equal(valid.length, 1)
  assert.equal(await statusOf(server, valid[0] ?? ''), 200)
  assert.equal(await statusOf(server, first.access_token), 401)
})
