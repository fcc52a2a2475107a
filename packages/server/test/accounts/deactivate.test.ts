/** POST /account/deactivate: what ends with an account, and what stays. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { startTestServer } from '@latchkey/testing/test-server.ts'
import { crossSigningBody, crossSigningPairs } from '@latchkey/testing/signing.ts'
import { keys, named } from '@latchkey/testing/test-client.ts'

const V3 = '/_matrix/client/v3'

function passwordAuth(user: string): object {
  return { type: 'm.login.password', identifier: { type: 'm.id.user', user }, password: 'password' }
}

test('a deactivated account has no session, device, key or data, cannot log in, and its name stays taken', async () => {
  await using server = await startTestServer()
  const alice = await server.login('alice', 'PHONE')
  const tablet = await server.login('alice', 'TABLET')
  const bob = await server.login('bob', 'BOB')
  const { token } = alice
  const query = { body: { device_keys: { [alice.userId]: [] } }, token: bob.token }
  const since = (await server.call('GET', `${V3}/sync?timeout=0`, { token: bob.token })).body.next_batch
  await server.call('POST', `${V3}/keys/query`, query)
  await server.call('POST', `${V3}/keys/upload`, { token, body: { one_time_keys: keys(['A']) } })
  const crossSigning = crossSigningBody(alice.userId, crossSigningPairs())
  assert.equal(
    (await server.call('POST', `${V3}/keys/device_signing/upload`, { token, body: crossSigning })).status,
    200,
  )
  const refused = await server.call('POST', `${V3}/account/deactivate`, { token, body: { erase: true } })
  assert.equal(refused.status, 401)
  const auth = { ...passwordAuth('alice'), session: refused.body.session }
  const done = await server.call('POST', `${V3}/account/deactivate`, { token, body: { auth } })
  assert.deepEqual([done.status, done.body], [200, { id_server_unbind_result: 'success' }])
  for (const each of [token, tablet.token])
    assert.equal((await server.call('GET', `${V3}/account/whoami`, { token: each })).status, 401)
  const login = await server.call('POST', `${V3}/login`, { body: passwordAuth('alice') })
  assert.deepEqual([login.status, login.body.errcode], [403, 'M_USER_DEACTIVATED'])
  const again = { username: 'alice', password: 'password', auth: { type: 'm.login.dummy' } }
  const registered = await server.call('POST', `${V3}/register`, { body: again })
  assert.equal(registered.body.errcode, 'M_USER_IN_USE')
  const published = (await server.call('POST', `${V3}/keys/query`, query)).body
  assert.deepEqual([published.device_keys, published.master_keys], [{ [alice.userId]: {} }, {}])
  const claim = { one_time_keys: { [alice.userId]: { PHONE: named('A').split(':')[0] } } }
  const claimed = await server.call('POST', `${V3}/keys/claim`, { token: bob.token, body: claim })
  assert.deepEqual(claimed.body.one_time_keys, {})
  const sync = await server.call('GET', `${V3}/sync?timeout=0&since=${since}`, { token: bob.token })
  assert.deepEqual(sync.body.device_lists?.changed, [alice.userId])
})

test('the operator deactivates an account without a session, as often as they like', async () => {
  await using server = await startTestServer()
  const { token, userId } = await server.login('alice', 'PHONE')
  const { accounts } = server.context.store
  const account = await accounts.find(userId as never)
  assert.ok(account)
  const { userRef } = account
  for (const now of [1, 2]) await accounts.deactivate({ userRef, now })
  assert.equal((await server.call('GET', `${V3}/account/whoami`, { token })).status, 401)
  assert.equal((await accounts.find(userId as never))?.isDeactivated, true)
})
