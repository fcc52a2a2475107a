/**
 * Server processes over one new schema of the PostgreSQL that LATCHKEY_TEST_POSTGRES names, and clients that call
 * random processes and record a history for the checker. Sessions are written directly into the store, because two
 * hundred password logins would take longer than the test.
 */
import { hash, randomBytes, randomInt } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { DeviceId, UserId } from '@latchkey/protocol'
import type { Exchange } from '../../bench/lib/history.ts'
import { DEFAULT_CONFIG, postgresOptions } from '../../packages/server/src/config/config.ts'
import type { TokenHash } from '../../packages/server/src/session.ts'
import { openPostgresStore } from '../../packages/server/src/store/postgres/index.ts'
import { openTestSchema } from '@latchkey/testing/test-schema.ts'
import { type ServerProcess, startProcess } from '@latchkey/testing/server-process.ts'

export type Device = { readonly userId: string; readonly deviceId: string; readonly token: string }

export type Processes = {
  readonly urls: readonly string[]
  /** Creates `count` devices, each with its own account. */
  makeDevices(name: string, count: number): Promise<Device[]>
  stop(): Promise<void>
}

const SERVER_NAME = 'test.example'

/** @throws {Error} without LATCHKEY_TEST_POSTGRES. */
export async function startProcesses(count: number): Promise<Processes> {
  const directory = mkdtempSync(join(tmpdir(), 'latchkey-concurrency-'))
  const schema = await openTestSchema(directory)
  if (schema === undefined) throw new Error('LATCHKEY_TEST_POSTGRES is not set; use npm run test:concurrency')
  const { database } = schema
  const flags = ['--database', database, '--limits', 'off', '--server-name', SERVER_NAME]
  const servers: ServerProcess[] = []
  for (let n = 0; n < count; n++) servers.push(await startProcess(join(directory, `${n}`), flags))
  const store = await openPostgresStore({
    ...postgresOptions({ ...DEFAULT_CONFIG, database, databaseConnections: 4 }),
    now: Date.now,
  })
  return {
    urls: servers.map(({ url }) => url),
    makeDevices: (name, wanted) =>
      Promise.all(
        Array.from({ length: wanted }, async (_, n): Promise<Device> => {
          const userId = `@${name}-${n}:${SERVER_NAME}` as UserId
          const deviceId = `${name}-${n}` as DeviceId
          const now = Date.now()
          const account = await store.accounts.create({ userId, passwordHash: '', now })
          const token = randomBytes(24).toString('base64url')
          const tokenHash = hash('sha256', token, 'base64url') as TokenHash
          await store.accounts.openSession({ account, deviceId, tokenHash, now })
          return { userId, deviceId, token }
        }),
      ),
    async stop() {
      await store.close()
      await Promise.all(servers.map((server) => server.stop()))
      await schema.drop()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

/** Sends each request to a random server and records the exchange. */
export class RecordingClient {
  readonly exchanges: Exchange[] = []
  readonly #urls: readonly string[]
  #moment = 0

  constructor(urls: readonly string[], devices: readonly Device[]) {
    this.#urls = urls
    for (const { userId, deviceId, token } of devices) this.#noteLogin(userId, deviceId, token)
  }

  async ask(method: string, path: string, token: string, body?: object): Promise<Record<string, unknown>> {
    const number = randomInt(this.#urls.length)
    const begin = ++this.#moment
    const text = body && JSON.stringify(body)
    const response = await fetch(`${this.#urls[number]}/_matrix/client/${path}`, {
      method,
      headers: { authorization: `Bearer ${token}` },
      ...(text !== undefined && { body: text }),
    })
    const answer = await response.text()
    const { status } = response
    const request = {
      method,
      path: `/_matrix/client/${path}`,
      token,
      ...(text !== undefined && { body: text }),
    }
    const n = this.exchanges.length
    this.exchanges.push({ n, begin, end: ++this.#moment, process: number, ...request, status, answer })
    if (status !== 200) throw new Error(`${method} ${path}: ${status} ${answer}`)
    return JSON.parse(answer) as Record<string, unknown>
  }

  /** Records a login, from which the checker learns the token. */
  #noteLogin(user: string, deviceId: string, token: string): void {
    const body = JSON.stringify({ identifier: { user }, device_id: deviceId })
    const answer = JSON.stringify({ user_id: user, device_id: deviceId, access_token: token })
    const times = { begin: ++this.#moment, end: ++this.#moment }
    const path = '/_matrix/client/v3/login'
    this.exchanges.push({
      n: this.exchanges.length,
      ...times,
      method: 'POST',
      path,
      body,
      status: 200,
      answer,
    })
  }
}
