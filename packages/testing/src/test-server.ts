/** A real server on a free port with a real database (test-schema.ts), and helpers to call it. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Config, DEFAULT_CONFIG } from '../../server/src/config/config.ts'
import { type Overrides, type Server, startServer } from '../../server/src/main.ts'
import { openTestSchema } from './test-schema.ts'

/** JSON of an answer, untyped for tests. */
// oxlint-disable-next-line typescript/no-explicit-any
export type AnyJson = any

export type TestClient = {
  /** Calls the server and returns the answer's status and JSON. */
  call(method: string, path: string, options?: CallOptions): Promise<{ status: number; body: AnyJson }>
  /** Registers a user with the password "password" and logs a device in. */
  login(localpart: string, deviceId?: string): Promise<TestDevice>
}

export type TestServer = Server &
  TestClient & {
    readonly dataDir: string
    [Symbol.asyncDispose](): Promise<void>
  }

/** Connections per server: many test files run at once, and PostgreSQL allows 100 connections by default. */
const TEST_CONNECTIONS = 5

export type CallOptions = {
  readonly token?: string
  readonly body?: unknown
  readonly headers?: Record<string, string>
}

export type TestDevice = { readonly userId: string; readonly deviceId: string; readonly token: string }

/** Configuration for tests: open registration, no log. */
export const TEST_CONFIG: Config = {
  ...DEFAULT_CONFIG,
  port: 0,
  registration: 'open',
  serverName: 'test.example',
  logLevel: 'silent',
  securityLog: 'off',
}

/** Every conflicting upload is refused, as on other homeservers: for clients that have to recover by themselves. */
export const REFUSING: Partial<Config> = { pools: { ...DEFAULT_CONFIG.pools, onConflict: 'reject' } }

export async function startTestServer(
  config: Partial<Config> = {},
  overrides: Overrides = {},
): Promise<TestServer> {
  const ownDir = config.dataDir === undefined
  const dataDir = config.dataDir ?? mkdtempSync(join(tmpdir(), 'latchkey-test-'))
  const { rates: _unlimited, ...base } = TEST_CONFIG
  const schema = await openTestSchema(dataDir)
  const database = schema && { database: schema.database, databaseConnections: TEST_CONNECTIONS }
  const server = await startServer({ ...base, ...database, ...config, dataDir }, overrides)
  return {
    ...server,
    ...clientOf(server.url),
    dataDir,
    async [Symbol.asyncDispose]() {
      await server.close()
      // The caller may reuse a directory that it named.
      if (!ownDir) return
      rmSync(dataDir, { recursive: true, force: true })
      await schema?.drop()
    },
  }
}

/** Calls a server in this or another process. */
export function clientOf(url: string): TestClient {
  const call: TestClient['call'] = async (method, path, { token, body, headers } = {}) => {
    const response = await fetch(url + path, {
      method,
      headers: {
        ...(token !== undefined && { authorization: `Bearer ${token}` }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
    return { status: response.status, body: JSON.parse(await response.text()) }
  }
  return {
    call,
    async login(localpart, deviceId) {
      const credentials = { username: localpart, password: 'password' }
      const registered = await call('POST', '/_matrix/client/v3/register', {
        body: { ...credentials, inhibit_login: true, auth: { type: 'm.login.dummy' } },
      })
      if (registered.status !== 200 && registered.body.errcode !== 'M_USER_IN_USE') {
        throw new Error(`register: ${JSON.stringify(registered.body)}`)
      }
      const { status, body } = await call('POST', '/_matrix/client/v3/login', {
        body: {
          type: 'm.login.password',
          identifier: { type: 'm.id.user', user: localpart },
          password: 'password',
          ...(deviceId !== undefined && { device_id: deviceId }),
        },
      })
      if (status !== 200) throw new Error(`login: ${JSON.stringify(body)}`)
      return { userId: body.user_id, deviceId: body.device_id, token: body.access_token }
    },
  }
}
