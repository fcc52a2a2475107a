/** A valid request for every endpoint that takes a body; hostile tests corrupt it one place at a time. */
import {
  crossSigningBody,
  crossSigningPairs,
  deviceKeysOf,
  signingKeyPair,
} from '@latchkey/testing/signing.ts'
import { fallback, keyObject, keys, named } from '@latchkey/testing/test-client.ts'
import type { TestDevice } from '@latchkey/testing/test-server.ts'

export type ValidRequest = {
  /** Below the endpoint's version; by default the endpoint's own path. */
  readonly path?: string
  readonly body: object
}

type Maker = (device: TestDevice) => ValidRequest

const password = (userId: string): object => ({
  type: 'm.login.password',
  identifier: { type: 'm.id.user', user: userId },
  password: 'password',
})

const ownPath = ({ userId }: TestDevice, rest: string): string =>
  `/user/${encodeURIComponent(userId)}/${rest}`

const resetBody: Maker = () => ({
  body: {
    all: false,
    key_ids: [named('A'), named('B')],
    'dev.latchkey.if_generation': 0,
    'dev.latchkey.request_id': 'request',
    one_time_keys: { [named('R')]: keyObject('replacement') },
    fallback_keys: fallback('RF'),
  },
})

/** By `METHOD /path` as in http/client-api. A new endpoint with a body needs a line here. */
export const VALID_REQUESTS: ReadonlyMap<string, Maker> = new Map<string, Maker>([
  [
    'POST /login',
    ({ userId }) => ({
      body: { ...password(userId), device_id: 'HOSTILE', initial_device_display_name: 'phone' },
    }),
  ],
  [
    'POST /register',
    () => ({
      body: {
        username: 'taken',
        password: 'password',
        device_id: 'D',
        initial_device_display_name: 'n',
        inhibit_login: true,
        auth: { type: 'm.login.dummy' },
      },
    }),
  ],
  ['POST /refresh', () => ({ body: { refresh_token: 'lkr_unknown' } })],
  [
    'POST /account/password',
    ({ userId }) => ({
      body: { new_password: 'password', logout_devices: false, auth: password(userId) },
    }),
  ],
  [
    'POST /account/deactivate',
    // With a wrong password: the user of the test stays.
    ({ userId }) => ({ body: { erase: true, auth: { ...password(userId), password: 'wrong' } } }),
  ],
  [
    'PUT /devices/:deviceId',
    ({ deviceId }) => ({ path: `/devices/${deviceId}`, body: { display_name: 'd' } }),
  ],
  [
    'DELETE /devices/:deviceId',
    ({ userId }) => ({ path: '/devices/UNKNOWN', body: { auth: password(userId) } }),
  ],
  ['POST /delete_devices', ({ userId }) => ({ body: { devices: ['UNKNOWN'], auth: password(userId) } })],
  [
    'POST /keys/upload',
    (device) => ({
      body: {
        device_keys: deviceKeysOf(device, signingKeyPair()),
        one_time_keys: { ...keys(['U']), 'plain:1': 'key' },
        fallback_keys: fallback('UF'),
      },
    }),
  ],
  ['POST /keys/query', ({ userId }) => ({ body: { device_keys: { [userId]: ['A'] }, timeout: 1000 } })],
  [
    'POST /keys/claim',
    ({ userId, deviceId }) => ({
      body: { one_time_keys: { [userId]: { [deviceId]: 'unheard_of' } }, timeout: 1000 },
    }),
  ],
  ['POST /_matrix/client/unstable/org.matrix.msc4162/keys/reset', resetBody],
  ['POST /keys/reset', resetBody],
  [
    'POST /keys/device_signing/upload',
    ({ userId }) => ({
      body: { ...crossSigningBody(userId, crossSigningPairs()), auth: password(userId) },
    }),
  ],
  [
    'POST /keys/signatures/upload',
    ({ userId, deviceId }) => ({
      body: { [userId]: { [deviceId]: { user_id: userId, device_id: deviceId, signatures: {} } } },
    }),
  ],
  [
    'PUT /sendToDevice/:eventType/:txnId',
    ({ userId }) => ({
      path: '/sendToDevice/m.hostile/1',
      body: { messages: { [userId]: { UNKNOWN: { text: 'x' }, '*': {} } } },
    }),
  ],
  [
    'POST /user/:userId/filter',
    (device) => ({ path: ownPath(device, 'filter'), body: { room: { limit: 1 } } }),
  ],
  [
    'PUT /user/:userId/account_data/:type',
    (device) => ({ path: ownPath(device, 'account_data/org.example'), body: { a: { b: 1 } } }),
  ],
])
