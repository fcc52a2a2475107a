/**
 * Sessions of user-interactive authentication: any process continues one, it remembers what was asked, and its answer
 * (issue 11 B3, issue 14 A1). With PostgreSQL two servers share a database and each request goes to the other one;
 * the embedded store is restarted between two requests.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { type AnyJson, startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'
import { createRegistrationToken } from '../../src/accounts/registration-token.ts'
import type { Config } from '../../src/config/config.ts'

const V3 = '/_matrix/client/v3'
const USES_POSTGRES = (process.env['LATCHKEY_TEST_POSTGRES'] ?? '') !== ''
const ROUNDS = USES_POSTGRES ? 40 : 4

type Answer = { readonly status: number; readonly body: AnyJson }
type Request = { readonly token?: string; readonly body: object }

/** Processes over one database. */
class Processes {
  readonly #directory = mkdtempSync(join(tmpdir(), 'latchkey-auth-'))
  readonly #config: Partial<Config>
  readonly #servers: TestServer[] = []
  #turn = 0

  constructor(config: Partial<Config> = {}) {
    this.#config = config
  }

  async start(): Promise<void> {
    for (let n = 0; n < (USES_POSTGRES ? 2 : 1); n++) this.#servers.push(await this.#open())
  }

  #open(): Promise<TestServer> {
    return startTestServer({ ...this.#config, dataDir: this.#directory })
  }

  /** Another process than at the last call, or the next one over the same file. */
  async next(): Promise<TestServer> {
    if (!USES_POSTGRES) {
      await this.#servers.pop()?.close()
      this.#servers.push(await this.#open())
    }
    const server = this.#servers[this.#turn++ % this.#servers.length]
    if (server === undefined) throw new Error('no server runs')
    return server
  }

  /** One of the running processes, without a restart. */
  any(n: number): TestServer {
    const server = this.#servers[n % this.#servers.length]
    if (server === undefined) throw new Error('no server runs')
    return server
  }

  async call(method: string, path: string, request: Request): Promise<Answer> {
    return (await this.next()).call(method, V3 + path, request)
  }

  async stop(): Promise<void> {
    for (const server of this.#servers) await server.close()
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

function passwordAuth(user: string, session?: string, password = 'password'): object {
  return { type: 'm.login.password', identifier: { type: 'm.id.user', user }, password, session }
}

const DUMMY = { type: 'm.login.dummy' }

describe('sessions of user-interactive authentication', () => {
  const processes = new Processes()
  before(() => processes.start())
  after(() => processes.stop())

  let users = 0
  async function newUser(): Promise<{ user: string; token: string }> {
    const user = `user${++users}`
    return { user, token: (await processes.any(0).login(user, 'PHONE')).token }
  }
  /** A body with new cross-signing keys would need signatures; a device to delete does as well. */
  async function otherDevice(user: string, deviceId: string): Promise<string> {
    return (await processes.any(0).login(user, deviceId)).token
  }
  const isValid = async (token: string): Promise<boolean> =>
    (await processes.any(0).call('GET', `${V3}/account/whoami`, { token })).status === 200

  test(`all of ${ROUNDS} registrations pass whose second request meets another process`, async () => {
    for (let n = 0; n < ROUNDS; n++) {
      const body = { username: `registered${n}`, password: 'password' }
      const challenge = await processes.call('POST', '/register', { body })
      assert.equal(challenge.status, 401)
      const auth = { ...DUMMY, session: challenge.body.session }
      const done = await processes.call('POST', '/register', { body: { ...body, auth } })
      assert.equal(done.status, 200, JSON.stringify(done.body))
    }
  })

  test('a second request with only auth continues with the first body', async () => {
    const { user, token } = await newUser()
    const tablet = await otherDevice(user, 'TABLET')
    const body = { devices: ['TABLET'] }
    const { session } = (await processes.call('POST', '/delete_devices', { token, body })).body
    const bare = { auth: passwordAuth(user, session) }
    const done = await processes.call('POST', '/delete_devices', { token, body: bare })
    assert.deepEqual([done.status, done.body], [200, {}])
    assert.equal(await isValid(tablet), false)
    const registration = { username: 'bare', password: 'password', device_id: 'REMEMBERED' }
    const asked = await processes.call('POST', '/register', { body: registration })
    const auth = { ...DUMMY, session: asked.body.session }
    const registered = await processes.call('POST', '/register', { body: { auth } })
    assert.deepEqual([registered.status, registered.body.device_id], [200, 'REMEMBERED'])
    const login = {
      type: 'm.login.password',
      identifier: { type: 'm.id.user', user: 'bare' },
      password: 'password',
    }
    assert.equal((await processes.call('POST', '/login', { body: login })).status, 200)
  })

  test('after a wrong password a request with only auth still continues', async () => {
    const { user, token } = await newUser()
    const body = { new_password: 'another password', logout_devices: false }
    const { session } = (await processes.call('POST', '/account/password', { token, body })).body
    const wrong = { auth: passwordAuth(user, session, 'wrong') }
    assert.equal((await processes.call('POST', '/account/password', { token, body: wrong })).status, 401)
    const right = { auth: passwordAuth(user, session) }
    assert.equal((await processes.call('POST', '/account/password', { token, body: right })).status, 200)
    const login = passwordAuth(user, undefined, 'another password')
    assert.equal((await processes.call('POST', '/login', { body: login })).status, 200)
  })

  test('a changed body counts when it comes with the proof, and is refused afterwards', async () => {
    const { user, token } = await newUser()
    const [tablet, laptop] = [await otherDevice(user, 'TABLET'), await otherDevice(user, 'LAPTOP')]
    const remove = (body: object): Promise<Answer> =>
      processes.call('POST', '/delete_devices', { token, body })
    const { session } = (await remove({ devices: ['TABLET'] })).body
    const auth = passwordAuth(user, session)
    assert.equal((await remove({ devices: ['LAPTOP'], auth })).status, 200)
    assert.deepEqual([await isValid(tablet), await isValid(laptop)], [true, false])
    const changed = await remove({ devices: ['TABLET'], auth })
    assert.deepEqual([changed.status, changed.body.errcode], [403, 'M_FORBIDDEN'])
    assert.equal(await isValid(tablet), true)
    assert.equal((await remove({ auth })).status, 200)
  })

  test('a session is refused for another path, method or user', async () => {
    const alice = await newUser()
    const bob = await newUser()
    const { session } = (
      await processes.call('POST', '/delete_devices', { token: alice.token, body: { devices: [] } })
    ).body
    const attempts: readonly (readonly [string, string, string, string])[] = [
      ['POST', '/account/password', alice.user, alice.token],
      ['DELETE', '/devices/PHONE', alice.user, alice.token],
      ['POST', '/delete_devices', bob.user, bob.token],
    ]
    for (const [method, path, user, token] of attempts) {
      const body = { devices: ['PHONE'], new_password: 'long enough', auth: passwordAuth(user, session) }
      const answer = await processes.call(method, path, { token, body })
      assert.deepEqual([answer.status, answer.body.errcode], [403, 'M_FORBIDDEN'], `${method} ${path}`)
    }
    const other = await processes.call('DELETE', '/devices/A', { token: alice.token, body: {} })
    const path = await processes.call('DELETE', '/devices/B', {
      token: alice.token,
      body: { auth: passwordAuth(alice.user, other.body.session) },
    })
    assert.equal(path.status, 403)
  })

  test('with an unknown session a request with only auth is refused, and a whole one is challenged', async () => {
    const { user, token } = await newUser()
    const auth = passwordAuth(user, 'unknown')
    const bare = await processes.call('POST', '/delete_devices', { token, body: { auth } })
    assert.deepEqual([bare.status, bare.body.errcode], [400, 'M_UNKNOWN'])
    const whole = await processes.call('POST', '/delete_devices', { token, body: { devices: [], auth } })
    assert.equal(whole.status, 401)
    const done = { auth: passwordAuth(user, whole.body.session) }
    assert.equal((await processes.call('POST', '/delete_devices', { token, body: done })).status, 200)
  })

  test('a registration whose answer was lost answers the same again, with a token that is valid', async () => {
    const body = { username: 'lost', password: 'password' }
    const { session } = (await processes.call('POST', '/register', { body })).body
    const auth = { ...DUMMY, session }
    const first = await processes.call('POST', '/register', { body: { ...body, auth } })
    assert.equal(first.status, 200)
    for (const again of [{ auth }, { auth, password: 'password', username: 'lost' }]) {
      assert.deepEqual(await processes.call('POST', '/register', { body: again }), first)
    }
    assert.equal(await isValid(first.body.access_token), true)
    const other = await processes.call('POST', '/register', { body: { ...body, password: 'a guess', auth } })
    assert.deepEqual([other.status, other.body.errcode], [403, 'M_FORBIDDEN'])
  })

  test('of 20 racing second requests one takes effect, and all get its answer', async () => {
    const body = { username: 'raced', password: 'password' }
    const { session } = (await processes.call('POST', '/register', { body })).body
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        processes.any(n).call('POST', `${V3}/register`, { body: { auth: { ...DUMMY, session } } }),
      ),
    )
    assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200])
    assert.equal(new Set(answers.map(({ body: { access_token } }) => access_token)).size, 1)
    assert.equal(await isValid(answers[0]?.body.access_token), true)
  })
})

test('a registration token with 3 uses creates exactly 3 of 30 racing accounts', async () => {
  const processes = new Processes({ registration: 'token' })
  await processes.start()
  try {
    const { context } = processes.any(0)
    const token = await createRegistrationToken(
      { accounts: context.store.accounts, now: Date.now },
      { usesAllowed: 3 },
    )
    const sessions = await Promise.all(
      Array.from({ length: 30 }, async (_, n) => {
        const body = { username: `many${n}`, password: 'password' }
        return (await processes.any(n).call('POST', `${V3}/register`, { body })).body.session
      }),
    )
    const answers = await Promise.all(
      sessions.map((session, n) => {
        const auth = { type: 'm.login.registration_token', token, session }
        return processes.any(n + 1).call('POST', `${V3}/register`, { body: { auth } })
      }),
    )
    const statuses = answers.map(({ status }) => status)
    assert.equal(statuses.filter((status) => status === 200).length, 3)
    assert.equal(statuses.filter((status) => status === 401).length, 27)
  } finally {
    await processes.stop()
  }
})
