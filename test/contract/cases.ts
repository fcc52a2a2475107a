/** The requests of the contract test for each endpoint, with the expected status. */
import {
  crossSigningBody,
  crossSigningPairs,
  deviceKeysOf,
  signingKeyPair,
} from '@latchkey/testing/signing.ts'
import { fallback, keyObject, keys, named } from '@latchkey/testing/test-client.ts'
import type { AnyJson, TestDevice, TestServer } from '@latchkey/testing/test-server.ts'

/** One request and its expected status. */
export type Ask = {
  /** The concrete path below the endpoint's version, with query. Default: the endpoint's path. */
  readonly path?: string
  readonly token?: string
  readonly body?: unknown
  readonly status: number
}

/** Fixture of a case: two users with one device each; Bob's keys are published and signed. */
export type CaseContext = {
  readonly server: TestServer
  readonly alice: TestDevice
  readonly bob: TestDevice
  /** Sends a request to the case's endpoint and validates the answer. */
  readonly ask: (ask: Ask) => Promise<AnyJson>
}

export type Case = (world: CaseContext) => Promise<unknown>

const password = (user: string, text = 'password'): object => ({
  type: 'm.login.password',
  identifier: { type: 'm.id.user', user },
  password: text,
})

const ownPath = ({ userId }: TestDevice, rest: string): string =>
  `/user/${encodeURIComponent(userId)}/${rest}`

/** Keyed by `METHOD /path` as in http/client-api. Every endpoint needs a case. */
export const CASES: ReadonlyMap<string, Case> = new Map<string, Case>([
  [
    'GET /_matrix/client/versions',
    async ({ ask, alice }) => {
      await ask({ status: 200 })
      await ask({ status: 200, token: alice.token })
    },
  ],
  ['GET /login', ({ ask }) => ask({ status: 200 })],
  [
    'POST /login',
    async ({ ask }) => {
      const body = { ...password('alice'), device_id: 'CONTRACT', initial_device_display_name: 'phone' }
      await ask({ status: 200, body })
      await ask({ status: 403, body: password('alice', 'wrong') })
      await ask({ status: 403, body: password('nobody') })
      await ask({ status: 400, body: { type: 'm.login.unheard_of' } })
      await ask({ status: 400, body: { ...password('alice'), password: 5 } })
    },
  ],
  [
    'POST /register',
    async ({ ask }) => {
      const account = { username: 'newcomer', password: 'password' }
      const { session } = await ask({ status: 401, body: account })
      await ask({ status: 200, body: { ...account, auth: { type: 'm.login.dummy', session } } })
      await ask({ status: 400, body: account })
      await ask({ status: 400, body: { ...account, username: 'not a name' } })
      const silent = { username: 'silent', password: 'password', inhibit_login: true }
      await ask({ status: 200, body: { ...silent, auth: { type: 'm.login.dummy' } } })
      await ask({ path: '/register?kind=guest', status: 403, body: {} })
    },
  ],
  [
    'GET /register/available',
    async ({ ask }) => {
      await ask({ path: '/register/available?username=unused', status: 200 })
      await ask({ path: '/register/available?username=alice', status: 400 })
      await ask({ path: '/register/available?username=%20', status: 400 })
    },
  ],
  [
    'POST /logout',
    async ({ ask, server }) => {
      const { token } = await server.login('leaver', 'ONE')
      await ask({ token, status: 200, body: {} })
      await ask({ token, status: 401, body: {} })
    },
  ],
  [
    'POST /logout/all',
    async ({ ask, server }) => {
      const { token } = await server.login('leaver', 'TWO')
      await ask({ token, status: 200, body: {} })
    },
  ],
  ['POST /refresh', ({ ask }) => ask({ status: 401, body: { refresh_token: 'lkr_unknown' } })],
  ['GET /account/whoami', ({ ask, alice }) => ask({ token: alice.token, status: 200 })],
  [
    'POST /account/password',
    async ({ ask, server }) => {
      const { token, userId } = await server.login('changer')
      const { session } = await ask({ token, status: 401, body: { new_password: 'another password' } })
      const wrong = { ...password(userId, 'wrong'), session }
      await ask({ token, status: 401, body: { new_password: 'another password', auth: wrong } })
      const auth = { ...password(userId), session }
      await ask({ token, status: 200, body: { new_password: 'another password', auth } })
      await ask({ token, status: 400, body: { new_password: 'x' } })
    },
  ],
  [
    'POST /account/deactivate',
    async ({ ask, server }) => {
      const { token, userId } = await server.login('quitter')
      const { session } = await ask({ token, status: 401, body: { erase: true } })
      await ask({ token, status: 200, body: { auth: { ...password(userId), session } } })
      await ask({ token, status: 401, body: { erase: true } })
    },
  ],
  ['GET /devices', ({ ask, alice }) => ask({ token: alice.token, status: 200 })],
  [
    'GET /devices/:deviceId',
    async ({ ask, alice }) => {
      await ask({ path: `/devices/${alice.deviceId}`, token: alice.token, status: 200 })
      await ask({ path: '/devices/UNKNOWN', token: alice.token, status: 404 })
    },
  ],
  [
    'PUT /devices/:deviceId',
    async ({ ask, alice: { token, deviceId } }) => {
      await ask({ path: `/devices/${deviceId}`, token, status: 200, body: { display_name: 'my phone' } })
      await ask({ path: '/devices/UNKNOWN', token, status: 404, body: { display_name: 'x' } })
      await ask({ path: `/devices/${deviceId}`, token, status: 400, body: { display_name: 1 } })
    },
  ],
  [
    'DELETE /devices/:deviceId',
    async ({ ask, server, alice }) => {
      const { token, userId } = alice
      await server.login('alice', 'DOOMED')
      const { session } = await ask({ path: '/devices/DOOMED', token, status: 401, body: {} })
      const auth = { ...password(userId), session }
      await ask({ path: '/devices/DOOMED', token, status: 200, body: { auth } })
      const other = { auth: password('@bob:test.example') }
      await ask({ path: `/devices/${alice.deviceId}`, token, status: 403, body: other })
    },
  ],
  [
    'POST /delete_devices',
    async ({ ask, server, alice: { token, userId } }) => {
      await server.login('alice', 'DOOMED2')
      await ask({ token, status: 401, body: { devices: ['DOOMED2'] } })
      await ask({ token, status: 200, body: { devices: ['DOOMED2', 'UNKNOWN'], auth: password(userId) } })
      await ask({ token, status: 400, body: { devices: 'DOOMED2' } })
    },
  ],
  [
    'POST /keys/upload',
    async ({ ask, alice }) => {
      const { token } = alice
      const device_keys = deviceKeysOf(alice, signingKeyPair())
      const one_time_keys = { ...keys(['C1', 'C2']), 'plain:1': 'key' }
      await ask({ token, status: 200, body: { device_keys, one_time_keys, fallback_keys: fallback('CF') } })
      await ask({ token, status: 200, body: {} })
      const conflict = { one_time_keys: { [named('C1')]: keyObject('conflict') } }
      await ask({ token, status: 400, body: conflict })
      await ask({ token, status: 400, body: { one_time_keys: { nonsense: {} } } })
    },
  ],
  [
    'POST /keys/query',
    async ({ ask, alice: { token }, bob }) => {
      const device_keys = { [bob.userId]: [], '@unknown:test.example': ['X'], '@far:away.example': [] }
      await ask({ token, status: 200, body: { device_keys, timeout: 1000 } })
      await ask({ token: bob.token, status: 200, body: { device_keys } })
      await ask({ token, status: 400, body: { device_keys: { [bob.userId]: { X: true } } } })
      await ask({ token, status: 400, body: {} })
    },
  ],
  [
    'POST /keys/claim',
    async ({ ask, alice: { token }, bob }) => {
      const one_time_keys = {
        [bob.userId]: { [bob.deviceId]: 'signed_curve25519' },
        '@far:away.example': { X: 'signed_curve25519' },
      }
      for (let i = 0; i < 3; i++) await ask({ token, status: 200, body: { one_time_keys, timeout: 1000 } })
      await ask({ token, status: 400, body: { one_time_keys: { nonsense: { X: 'a' } } } })
    },
  ],
  [
    'GET /keys/changes',
    async ({ ask, alice: { token } }) => {
      await ask({ path: '/keys/changes?from=x&to=y', token, status: 200 })
      await ask({ path: '/keys/changes', token, status: 400 })
    },
  ],
  ['POST /_matrix/client/unstable/org.matrix.msc4162/keys/reset', askForReset],
  ['POST /keys/reset', askForReset],
  [
    'GET /_matrix/client/unstable/dev.latchkey/keys/pool',
    async ({ ask, bob: { token } }) => {
      await ask({ token, status: 200 })
      await ask({ path: '/_matrix/client/unstable/dev.latchkey/keys/pool?limit=x', token, status: 400 })
    },
  ],
  [
    'POST /keys/device_signing/upload',
    async ({ ask, server }) => {
      const { token, userId } = await server.login('crosser')
      const body = crossSigningBody(userId, crossSigningPairs())
      await ask({ token, status: 200, body })
      const other = crossSigningBody(userId, crossSigningPairs())
      const { session } = await ask({ token, status: 401, body: other })
      await ask({ token, status: 200, body: { ...other, auth: { ...password(userId), session } } })
      const mixed = { self_signing_key: body.self_signing_key, auth: password(userId) }
      await ask({ token, status: 400, body: mixed })
    },
  ],
  [
    'POST /keys/signatures/upload',
    async ({ ask, bob: { token, userId, deviceId } }) => {
      await ask({ token, status: 200, body: {} })
      await ask({ token, status: 200, body: { [userId]: { [deviceId]: { user_id: userId } } } })
      await ask({ token, status: 400, body: { [userId]: { [deviceId]: 1 } } })
    },
  ],
  ['GET /room_keys/version', ({ ask, alice }) => ask({ token: alice.token, status: 404 })],
  [
    'GET /sync',
    async ({ ask, server, alice: { token, userId, deviceId }, bob }) => {
      const { next_batch } = await ask({ token, status: 200 })
      await server.call('PUT', '/_matrix/client/v3/sendToDevice/m.contract/1', {
        token: bob.token,
        body: { messages: { [userId]: { [deviceId]: { hello: 'world' } } } },
      })
      await server.login('alice', 'ANOTHER')
      await ask({ path: `/sync?since=${next_batch}&timeout=1000`, token, status: 200 })
      await ask({ path: '/sync?since=nonsense', token, status: 200 })
      await ask({ path: '/sync?filter={', token, status: 400 })
    },
  ],
  [
    'PUT /sendToDevice/:eventType/:txnId',
    async ({ ask, alice: { token }, bob }) => {
      const path = '/sendToDevice/m.contract/contract'
      await ask({ path, token, status: 200, body: { messages: { [bob.userId]: { '*': { a: 1 } } } } })
      await ask({ path, token, status: 400, body: { messages: { [bob.userId]: { '*': 'a' } } } })
      await ask({ path, token, status: 400, body: {} })
    },
  ],
  [
    'POST /user/:userId/filter',
    async ({ ask, alice, bob }) => {
      const { token } = alice
      await ask({ path: ownPath(alice, 'filter'), token, status: 200, body: { event_fields: ['type'] } })
      await ask({ path: ownPath(bob, 'filter'), token, status: 403, body: {} })
      await ask({ path: ownPath(alice, 'filter'), token, status: 400, body: [] })
    },
  ],
  [
    'GET /user/:userId/filter/:filterId',
    async ({ ask, server, alice }) => {
      const { token } = alice
      const path = `/_matrix/client/v3${ownPath(alice, 'filter')}`
      const body = { room: { timeline: { limit: 1 } } }
      const made = await server.call('POST', path, { token, body })
      await ask({ path: ownPath(alice, `filter/${made.body.filter_id}`), token, status: 200 })
      await ask({ path: ownPath(alice, 'filter/999'), token, status: 404 })
    },
  ],
  [
    'PUT /user/:userId/account_data/:type',
    async ({ ask, alice, bob }) => {
      const { token } = alice
      await ask({ path: ownPath(alice, 'account_data/org.example'), token, status: 200, body: { a: 1 } })
      await ask({ path: ownPath(bob, 'account_data/org.example'), token, status: 403, body: {} })
      await ask({ path: ownPath(alice, 'account_data/m.push_rules'), token, status: 405, body: {} })
      await ask({ path: ownPath(alice, 'account_data/org.example'), token, status: 400, body: '[' })
    },
  ],
  [
    'GET /user/:userId/account_data/:type',
    async ({ ask, server, alice, bob }) => {
      const { token } = alice
      const path = ownPath(alice, 'account_data/org.read')
      await ask({ path, token, status: 404 })
      await server.call('PUT', `/_matrix/client/v3${path}`, { token, body: { b: [] } })
      await ask({ path, token, status: 200 })
      await ask({ path: ownPath(bob, 'account_data/org.read'), token, status: 403 })
    },
  ],
  ['GET /pushrules', ({ ask, alice }) => ask({ token: alice.token, status: 200 })],
  ['GET /pushrules/', ({ ask, alice }) => ask({ token: alice.token, status: 200 })],
  ['GET /pushrules/global', ({ ask, alice }) => ask({ token: alice.token, status: 200 })],
  ['GET /pushrules/global/', ({ ask, alice }) => ask({ token: alice.token, status: 200 })],
  ['GET /capabilities', ({ ask, alice }) => ask({ token: alice.token, status: 200 })],
])

async function askForReset({ ask, server }: CaseContext): Promise<void> {
  const device = await server.login('resetter')
  const { token } = device
  await server.call('POST', '/_matrix/client/v3/keys/upload', {
    token,
    body: { one_time_keys: keys(['R1']) },
  })
  await ask({ token, status: 200, body: { key_ids: [named('R1'), named('R2')] } })
  const body = { all: true, one_time_keys: keys(['R3']), fallback_keys: fallback('RF') }
  await ask({ token, status: 200, body })
  await ask({ token, status: 400, body: { key_ids: [], one_time_keys: { [named('R3')]: keyObject('x') } } })
  await ask({ token, status: 409, body: { all: true, 'dev.latchkey.if_generation': 99 } })
  await ask({ token, status: 400, body: { all: false } })
}
