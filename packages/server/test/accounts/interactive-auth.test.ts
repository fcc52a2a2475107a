/** User-interactive authentication over HTTP: the operation, the user and the time for which a session is valid. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { DEFAULT_RATES } from '../../src/config/config.ts'
import { startTestServer } from '@latchkey/testing/test-server.ts'

const V3 = '/_matrix/client/v3'
const DUMMY = { type: 'm.login.dummy' }

function passwordLogin(user: string, password = 'password'): object {
  return { type: 'm.login.password', identifier: { type: 'm.id.user', user }, password }
}

function passwordAuth(user: string, password = 'password', session?: string): object {
  return { ...passwordLogin(user, password), ...(session !== undefined && { session }) }
}

test('a wrong password is challenged again in the same session, which can then be completed', async () => {
  await using server = await startTestServer()
  const { token } = await server.login('alice', 'PHONE')
  const remove = (auth: object): ReturnType<typeof server.call> =>
    server.call('POST', `${V3}/delete_devices`, { token, body: { devices: ['X'], auth } })
  const first = await remove({})
  assert.equal(first.status, 401)
  const { session } = first.body
  const wrong = await remove(passwordAuth('alice', 'wrong', session))
  assert.deepEqual([wrong.status, wrong.body.errcode], [401, 'M_FORBIDDEN'])
  assert.equal(wrong.body.session, session)
  assert.deepEqual(wrong.body.flows, [{ stages: ['m.login.password'] }])
  assert.equal((await remove(passwordAuth('alice', 'password', session))).status, 200)
  const repeated = await remove({ session })
  assert.deepEqual([repeated.status, repeated.body], [200, {}])
})

test('a password of another user and a malformed auth are refused', async () => {
  await using server = await startTestServer()
  const { token } = await server.login('alice', 'PHONE')
  await server.login('bob')
  for (const [auth, status, errcode] of [
    [passwordAuth('bob'), 403, 'M_FORBIDDEN'],
    [passwordAuth('@alice:elsewhere.example'), 403, 'M_FORBIDDEN'],
    [{ type: 'm.login.password', user: 'alice' }, 400, 'M_MISSING_PARAM'],
    [{ type: 'm.login.password', password: 'password' }, 400, 'M_MISSING_PARAM'],
    [{ type: 7 }, 400, 'M_BAD_JSON'],
    [{ session: {} }, 400, 'M_BAD_JSON'],
    [[], 400, 'M_BAD_JSON'],
    [DUMMY, 401, 'M_INVALID_PARAM'],
    [{ type: 'm.login.password', user: 'alice', password: 'password' }, 200, undefined],
  ] as const) {
    const answer = await server.call('POST', `${V3}/delete_devices`, { token, body: { devices: [], auth } })
    assert.deepEqual([answer.status, answer.body.errcode], [status, errcode], JSON.stringify(auth))
  }
})

test('a session is valid for a limited time', async () => {
  let nowMs = Date.now()
  await using server = await startTestServer({}, { now: () => nowMs })
  const { token } = await server.login('alice', 'PHONE')
  const remove = (auth?: object): ReturnType<typeof server.call> =>
    server.call('POST', `${V3}/delete_devices`, { token, body: { devices: [], auth } })
  const { session } = (await remove()).body
  nowMs += 15 * 60 * 1000
  const answer = await remove(passwordAuth('alice', 'password', session))
  assert.equal(answer.status, 401)
  assert.notEqual(answer.body.session, session)
  assert.deepEqual(answer.body.completed, [])
})

test('an identifier of another kind than m.id.user is refused, at login and in user-interactive authentication', async () => {
  await using server = await startTestServer()
  const { token } = await server.login('alice', 'PHONE')
  for (const [type, errcode] of [
    ['m.id.thirdparty', 'M_INVALID_PARAM'],
    [undefined, 'M_MISSING_PARAM'],
  ] as const) {
    const auth = { type: 'm.login.password', identifier: { type, user: 'alice' }, password: 'password' }
    const confirmed = await server.call('POST', `${V3}/delete_devices`, {
      token,
      body: { devices: [], auth },
    })
    const login = await server.call('POST', `${V3}/login`, { body: auth })
    assert.deepEqual([confirmed.status, confirmed.body.errcode], [400, errcode])
    assert.deepEqual([login.status, login.body.errcode], [400, errcode])
  }
})

test('password attempts in user-interactive authentication are rate-limited per user', async () => {
  const rates = { ...DEFAULT_RATES, loginPerAccount: { burst: 2, perSecond: 0.001 } }
  await using server = await startTestServer({ rates })
  const { token } = await server.login('alice', 'PHONE')
  const statuses = []
  for (const password of ['wrong', 'wrong', 'password']) {
    const body = { devices: [], auth: passwordAuth('alice', password) }
    statuses.push((await server.call('POST', `${V3}/delete_devices`, { token, body })).status)
  }
  assert.deepEqual(statuses, [401, 401, 429])
})
