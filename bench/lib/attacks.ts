/** The requests of accounts that ask for as much as they can: one row per endpoint of issue 11, C1. */
import type { FilledDevice } from './fill.ts'
import type { Request } from './load.ts'
import { uploadOf } from './requests.ts'

const CLIENT = '/_matrix/client/v3'

export type Attack = {
  readonly name: string
  /** Default: 8. */
  readonly connections?: number
  /** Requests per second of each connection. Default: as fast as they are answered. */
  readonly perSecond?: number
  /** Runs next to users who track the attacker and wait. */
  readonly observed?: true
  readonly request: (attacker: FilledDevice) => () => Request
}

export const CHEAP: Attack = {
  name: 'cheap requests (whoami)',
  request:
    ({ token }) =>
    () => ({ method: 'GET', path: `${CLIENT}/account/whoami`, token }),
}

export const ATTACKS: readonly Attack[] = [
  repeated('queries of 10 000 users', '/keys/query', { device_keys: users(10_000, []) }),
  repeated('claims from 10 000 devices', '/keys/claim', { one_time_keys: users(10_000, { D: 'x' }) }),
  repeated('signatures of 1 000 users', '/keys/signatures/upload', users(1_000, { D: {} })),
  repeated('190 000 users without anything', '/keys/query', { device_keys: users(190_000, {}) }),
  repeated(
    '0.4 MB with one fraction',
    '/keys/upload',
    `{"x":[${'1,'.repeat(19_000)}1.5],"y":"${'x'.repeat(360_000)}"}`,
  ),
  numbered('uploads of 500 keys', (attacker, n) => uploadOf(attacker, 500, 1_000 + n * 500)),
  numbered('to-device messages to 10 000 devices', ({ token }, n) => ({
    method: 'PUT',
    path: `${CLIENT}/sendToDevice/m.room.encrypted/${n}`,
    token,
    body: TO_DEVICE,
  })),
  numbered('first syncs', ({ token }) => ({ method: 'GET', path: `${CLIENT}/sync?timeout=0`, token })),
  repeated('cross-signing keys of 2 MB', '/keys/device_signing/upload', { x: 'x'.repeat(2_000_000) }),
  { ...numbered('renames, 600 observers wait', renameOf), observed: true },
  {
    name: 'one client that repeats a refused upload 144 times a second',
    connections: 1,
    perSecond: 144,
    request: (attacker) => {
      const conflict = uploadOf(attacker, 50, 0)
      return () => conflict
    },
  },
]

function users(count: number, value: unknown): object {
  return Object.fromEntries(Array.from({ length: count }, (_, n) => [`@unknown${n}:bench.example`, value]))
}

const TO_DEVICE = JSON.stringify({ messages: users(10_000, { D: { ciphertext: 'x'.repeat(400) } }) })

function repeated(name: string, path: string, value: object | string): Attack {
  const body = typeof value === 'string' ? value : JSON.stringify(value)
  return {
    name,
    request:
      ({ token }) =>
      () => ({ method: 'POST', path: CLIENT + path, token, body }),
  }
}

function numbered(name: string, make: (attacker: FilledDevice, n: number) => Request): Attack {
  return {
    name,
    request: (attacker) => {
      let n = 0
      return () => make(attacker, n++)
    },
  }
}

function renameOf({ deviceId, token }: FilledDevice, n: number): Request {
  const body = JSON.stringify({ display_name: `name ${n}` })
  return { method: 'PUT', path: `${CLIENT}/devices/${deviceId}`, token, body }
}

/** Requests after which an observer's sync reports each change of a user's device list. */
export function trackRequest(observer: FilledDevice, userId: string): Request {
  const body = JSON.stringify({ device_keys: { [userId]: [] } })
  return { method: 'POST', path: `${CLIENT}/keys/query`, token: observer.token, body }
}

export function waitingSync({ token }: FilledDevice, since: string | undefined): Request {
  const query = since === undefined ? 'timeout=0' : `timeout=30000&since=${since}`
  return { method: 'GET', path: `${CLIENT}/sync?${query}`, token }
}
