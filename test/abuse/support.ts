/**
 * A server under attack (issue 11): default limits, and a clock that stands still, so that no bucket refills and counts
 * do not depend on the machine. A proxy reports the addresses of clients.
 */
import {
  type Config,
  DEFAULT_RATES,
  DEFAULT_SIZES,
  type SizeLimits,
} from '../../packages/server/src/config/config.ts'
import { readMetrics } from '@latchkey/testing/metrics.ts'
import { CLIENT, ok } from '@latchkey/testing/test-client.ts'
import {
  type AnyJson,
  startTestServer,
  type TestDevice,
  type TestServer,
} from '@latchkey/testing/test-server.ts'

const NOW = 1_700_000_000_000

/** @param sizes smaller limits, where filling the default ones takes long */
export function start(sizes: Partial<SizeLimits> = {}, config: Partial<Config> = {}): Promise<TestServer> {
  return startTestServer(
    {
      rates: DEFAULT_RATES,
      trustProxy: 1,
      metricsPort: 0,
      sizes: { ...DEFAULT_SIZES, ...sizes },
      ...config,
    },
    { now: () => NOW },
  )
}

function from(address: string): { readonly headers: Record<string, string> } {
  return { headers: { 'x-forwarded-for': address } }
}

/** Registers an account with the password "password" and its first device. */
export async function register(
  server: TestServer,
  username: string,
  address: string,
  deviceId = username.toUpperCase(),
): Promise<TestDevice> {
  const body = { username, password: 'password', device_id: deviceId, auth: { type: 'm.login.dummy' } }
  const answer = ok(await server.call('POST', `${CLIENT}/register`, { body, ...from(address) }))
  return { userId: answer.user_id, deviceId, token: answer.access_token }
}

export function tryLogin(
  server: TestServer,
  user: string,
  address: string,
  { deviceId, password = 'password' }: { readonly deviceId?: string; readonly password?: string } = {},
): ReturnType<TestServer['call']> {
  const identifier = { type: 'm.id.user', user }
  const body = { type: 'm.login.password', identifier, password, device_id: deviceId }
  return server.call('POST', `${CLIENT}/login`, { body, ...from(address) })
}

/** Further devices of an account, each from an address of its own. */
export async function logInDevices(
  server: TestServer,
  { userId }: TestDevice,
  count: number,
): Promise<TestDevice[]> {
  const devices: TestDevice[] = []
  for (let n = 0; n < count; n++) {
    const deviceId = `DEVICE${n}`
    const { access_token: token } = ok(await tryLogin(server, userId, `203.0.113.${n}`, { deviceId }))
    devices.push({ userId, deviceId, token })
  }
  return devices
}

/** The value of a metric, with its labels. */
export async function metric(server: TestServer, name: string): Promise<number> {
  return (await readMetrics(server.metricsUrl ?? '')).get(`latchkey_${name}`) ?? Number.NaN
}

/** Events of one kind in the security log, also those that were not written. */
export function eventsOf(server: TestServer, event: string): Promise<number> {
  return metric(server, `security_events_total{event="${event}"}`)
}

/** Answers by status. */
export function countsOf(answers: readonly { readonly status: number }[]): Record<number, number> {
  const counts: Record<number, number> = {}
  for (const { status } of answers) counts[status] = (counts[status] ?? 0) + 1
  return counts
}

/** Observes the calls of a method. */
export function around(
  target: object,
  name: string,
  observe: (call: () => unknown, argument: AnyJson) => unknown,
): void {
  const original = Reflect.get(target, name) as (...args: unknown[]) => unknown
  Reflect.set(target, name, (...args: unknown[]) => observe(() => original.apply(target, args), args[0]))
}
