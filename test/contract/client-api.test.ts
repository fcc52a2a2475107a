/**
 * Validates every endpoint's answers over HTTP against the Matrix specification's OpenAPI. Latchkey's own paths and
 * members are validated against latchkey-schemas.ts. Without the specification the tests are skipped, except in CI.
 */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { DEFAULT_CONFIG, DEFAULT_RATES } from '../../packages/server/src/config/config.ts'
import { clientApi } from '../../packages/server/src/http/client-api/index.ts'
import type { Endpoint } from '../../packages/server/src/http/endpoint.ts'
import { deviceKeysOf, signingKeyPair } from '@latchkey/testing/signing.ts'
import { fallback, keys, ok, upload } from '@latchkey/testing/test-client.ts'
import {
  type AnyJson,
  startTestServer,
  type TestDevice,
  type TestServer,
} from '@latchkey/testing/test-server.ts'
import { type Ask, CASES } from './cases.ts'
import {
  CONFLICT,
  POOL_ANSWER,
  POOL_CHANGED,
  RESET_ANSWER,
  SYNC_KEY_POOL,
  UPLOAD_ANSWER,
} from './latchkey-schemas.ts'
import { MatrixSpec, SPEC_MISSING, specAvailable } from './openapi.ts'

const V3 = '/_matrix/client/v3'
const RESET = 'POST /_matrix/client/unstable/org.matrix.msc4162/keys/reset'
const POOL = 'GET /_matrix/client/unstable/dev.latchkey/keys/pool'

/** Schemas of the answers of paths that the specification does not have. */
const OWN: ReadonlyMap<string, ReadonlyMap<number, object>> = new Map([
  [RESET, resetSchemas()],
  ['POST /keys/reset', resetSchemas()],
  [POOL, new Map([[200, POOL_ANSWER]])],
])

/** Schemas of answers to which Latchkey adds members. */
const ADDED: ReadonlyMap<string, object> = new Map<string, object>([
  ['POST /keys/upload 200', UPLOAD_ANSWER],
  ['GET /sync 200', SYNC_KEY_POOL],
])

/** The specification's path for paths that are also served without their last slash. */
const ALIASES: ReadonlyMap<string, string> = new Map([
  ['/pushrules', '/pushrules/'],
  ['/pushrules/global', '/pushrules/global/'],
])

const ajv = new Ajv2020({ strict: false })

describe('the client-server API', { skip: specAvailable || isCi() ? false : SPEC_MISSING }, () => {
  test('the specification is available', () => {
    assert.ok(specAvailable, SPEC_MISSING)
  })
  if (!specAvailable) return
  const spec = new MatrixSpec()
  const endpoints = clientApi(DEFAULT_CONFIG)

  test('the validator accepts the specification’s own examples and rejects a wrong answer', () => {
    let examples = 0
    for (const endpoint of endpoints.filter((each) => !OWN.has(nameOf(each)))) {
      for (const status of [200, 400, 401, 403, 429]) {
        const { method } = endpoint
        for (const example of spec.responseExamples(method, specPath(endpoint), status)) {
          examples++
          assert.deepEqual(spec.faults(method, specPath(endpoint), status, example), [], nameOf(endpoint))
        }
      }
    }
    assert.ok(examples > 30, `${examples} examples found`)
    for (const wrong of [{}, { one_time_keys: [] }, { one_time_keys: { '@a:b': { D: { 'a:1': {} } } } }]) {
      assert.notDeepEqual(spec.faults('POST', `${V3}/keys/claim`, 200, wrong), [])
    }
    assert.notDeepEqual(spec.faults('POST', `${V3}/keys/claim`, 400, { error: 'no code' }), [])
  })

  test('has a case for every endpoint and no other case', () => {
    assert.deepEqual([...CASES.keys()].toSorted(), endpoints.map(nameOf).toSorted())
    for (const endpoint of endpoints) {
      const known = spec.has(endpoint.method, specPath(endpoint))
      assert.equal(known, !OWN.has(nameOf(endpoint)), `${nameOf(endpoint)} in the specification`)
    }
  })

  for (const endpoint of endpoints) {
    test(`${nameOf(endpoint)} answers as specified`, async () => {
      await using server = await startTestServer()
      const [alice, bob] = [await server.login('alice', 'ALICE'), await loginWithKeys(server)]
      const ask = async ({ path = endpoint.path, status, ...options }: Ask): Promise<AnyJson> => {
        const reply = await server.call(endpoint.method, concrete(path), options)
        checkAnswer(spec, endpoint, reply, status)
        return reply.body
      }
      const run = CASES.get(nameOf(endpoint))
      assert.ok(run, `no contract case for ${nameOf(endpoint)}: add one to test/contract/cases.ts`)
      await run({ server, alice, bob, ask })
      const path = endpoint.path.replaceAll(/:\w+/g, 'x')
      if (endpoint.auth) {
        await ask({ path, status: 401 })
        await ask({ path, token: 'nonsense', status: 401 })
      }
      if (endpoint.body !== undefined) {
        await ask({ path, token: alice.token, status: 400, body: '{' })
        await ask({ path, token: alice.token, status: 400, body: '[1]' })
      }
    })
  }

  test('rate limits answer 429 as specified', async () => {
    const none = { burst: 1, perSecond: 0.001 }
    const rates = {
      ...DEFAULT_RATES,
      loginPerAddress: { burst: 2, perSecond: 0.001 },
      registrationPerAddress: none,
      toDeviceDeliveriesPerUser: none,
      toDeviceKibPerUser: none,
      resetPerDevice: none,
    }
    await using server = await startTestServer({ rates })
    const { token, userId } = await server.login('alice', 'A')
    const byName = new Map(endpoints.map((endpoint) => [nameOf(endpoint), endpoint]))
    const limited = async (name: string, path: string, body: unknown): Promise<void> => {
      const endpoint = byName.get(name)
      assert.ok(endpoint)
      for (let tries = 0; ; tries++) {
        const reply = await server.call(endpoint.method, concrete(path), { token, body })
        if (reply.status !== 429 && tries < 3) continue
        checkAnswer(spec, endpoint, reply, 429)
        assert.ok(reply.body.retry_after_ms > 0)
        return
      }
    }
    const account = { username: 'x', password: 'password', auth: { type: 'm.login.dummy' } }
    await limited('POST /register', '/register', account)
    const login = { type: 'm.login.password', identifier: { type: 'm.id.user', user: 'x' }, password: 'y' }
    await limited('POST /login', '/login', login)
    await limited(RESET, byName.get(RESET)?.path ?? '', { all: true })
    const body = { messages: { [userId]: { A: {} } } }
    await server.call('PUT', concrete('/sendToDevice/a/1'), { token, body })
    await limited('PUT /sendToDevice/:eventType/:txnId', '/sendToDevice/a/2', body)
  })

  test('accepts the specification’s own request examples', async () => {
    await using server = await startTestServer({ serverName: 'example.com' })
    const alice = await server.login('alice', 'JLAFKJWSCS')
    const user = encodeURIComponent(alice.userId)
    for (const [method, template, path] of [
      ['POST', '/keys/upload', '/keys/upload'],
      ['POST', '/keys/query', '/keys/query'],
      ['POST', '/keys/claim', '/keys/claim'],
      ['PUT', '/sendToDevice/{type}/{txn}', '/sendToDevice/m.new_device/35'],
      ['POST', '/user/{user}/filter', `/user/${user}/filter`],
      ['PUT', '/user/{user}/account_data/{type}', `/user/${user}/account_data/org.example`],
      ['PUT', '/devices/{device}', '/devices/JLAFKJWSCS'],
      ['POST', '/keys/signatures/upload', '/keys/signatures/upload'],
    ] as const) {
      const body = spec.requestExample(method, V3 + template)
      assert.ok(body, `${method} ${template} has an example`)
      const reply = await server.call(method, V3 + path, { token: alice.token, body })
      assert.equal(reply.status, 200, `${method} ${template}: ${JSON.stringify(reply.body)}`)
      assert.deepEqual(spec.faults(method, V3 + template, 200, reply.body), [])
    }
    const registration = spec.requestExample('POST', `${V3}/register`) as { username: string }
    const auth = { type: 'm.login.dummy' }
    ok(await server.call('POST', `${V3}/register`, { body: { ...registration, auth } }))
    const login = spec.requestExample('POST', `${V3}/login`)
    const reply = await server.call('POST', `${V3}/login`, { body: login })
    assert.equal(ok(reply).user_id, `@${registration.username}:example.com`)
  })
})

function isCi(): boolean {
  return process.env['CI'] === 'true'
}

function resetSchemas(): ReadonlyMap<number, object> {
  return new Map([
    [200, RESET_ANSWER],
    [409, POOL_CHANGED],
  ])
}

function nameOf({ method, path }: Endpoint): string {
  return `${method} ${path}`
}

function specPath({ path }: Endpoint): string {
  return concrete(ALIASES.get(path) ?? path)
}

function concrete(path: string): string {
  return path.startsWith('/_matrix') ? path : V3 + path
}

function checkAnswer(
  spec: MatrixSpec,
  endpoint: Endpoint,
  { status, body }: { readonly status: number; readonly body: AnyJson },
  expected: number,
): void {
  const name = nameOf(endpoint)
  assert.equal(status, expected, `${name}: ${JSON.stringify(body)}`)
  const own = OWN.get(name)
  // Errors of Latchkey's own paths are Matrix errors too; any path of the specification defines those.
  const [method, path] =
    own === undefined ? [endpoint.method, specPath(endpoint)] : ['POST', `${V3}/keys/upload`]
  if (own === undefined || status >= 400) {
    assert.deepEqual(
      spec.faults(method, path, status, body),
      [],
      `${name} ${status}: ${JSON.stringify(body)}`,
    )
  }
  if (status >= 400 && !('flows' in body)) assert.equal(typeof body.error, 'string')
  const isConflict = body.errcode === 'io.github.johennes.msc4420.M_DUPLICATE_ONE_TIME_KEY'
  const schema = isConflict ? CONFLICT : (own?.get(status) ?? ADDED.get(`${name} ${status}`))
  if (schema === undefined) return
  const valid = ajv.validate(schema, body)
  assert.ok(valid, `${name} ${status}: ${ajv.errorsText()} in ${JSON.stringify(body)}`)
}

/** Bob's device, with all key types published. */
async function loginWithKeys(server: TestServer): Promise<TestDevice> {
  const bob = await server.login('bob', 'BOB')
  await upload(server, bob, {
    device_keys: deviceKeysOf(bob, signingKeyPair()),
    one_time_keys: keys(['B1']),
    fallback_keys: fallback('BF'),
  })
  return bob
}
