/**
 * Malformed bodies: not JSON, not UTF-8, wrong types at every position, nested too deeply, characters that identifiers
 * do not allow, names of JavaScript object members. Each gets a Matrix error that states the reason, and a refused
 * request has changed nothing.
 */
import assert from 'node:assert/strict'
import test, { after, describe } from 'node:test'
import { Ajv } from 'ajv'
import { DEFAULT_CONFIG } from '../../src/config/config.ts'
import { clientApi } from '../../src/http/client-api/index.ts'
import { type Endpoint, maxBodyBytes } from '../../src/http/endpoint.ts'
import { claim, CLIENT, keys, ok, pool, refused, UPLOAD, upload } from '@latchkey/testing/test-client.ts'
import { type AnyJson, startTestServer, type TestDevice } from '@latchkey/testing/test-server.ts'
import { VALID_REQUESTS, type ValidRequest } from '../support/valid-bodies.ts'

const server = await startTestServer()
after(() => server[Symbol.asyncDispose]())
let users = 0
async function stockedDevice(): Promise<TestDevice> {
  const device = await server.login(`user${++users}`, `DEV${users}`)
  await upload(server, device, { one_time_keys: keys(['A', 'B']) })
  return device
}

const nameOf = ({ method, path }: Endpoint): string => `${method} ${path}`
const endpoints = clientApi(DEFAULT_CONFIG).filter((endpoint) => endpoint.body !== undefined)

function validRequest(endpoint: Endpoint, device: TestDevice): ValidRequest & { readonly path: string } {
  const make = VALID_REQUESTS.get(nameOf(endpoint))
  assert.ok(make, `no valid request for ${nameOf(endpoint)}: add one to test/support/valid-bodies.ts`)
  const { path = endpoint.path, body } = make(device)
  return { path: path.startsWith('/_matrix') ? path : CLIENT + path, body }
}

/** State that a refused request must leave unchanged. */
async function snapshot(device: TestDevice): Promise<unknown> {
  const { token, userId } = device
  const list = ok(await server.call('GET', `${CLIENT}/devices`, { token }))
  const devices = list.devices.map((each: AnyJson) => [each.device_id, each.display_name])
  const query = { device_keys: { [userId]: [] } }
  const published = ok(await server.call('POST', `${CLIENT}/keys/query`, { token, body: query }))
  return { devices, published, pool: await pool(server, device) }
}

/** Requires a Matrix error: a code, a text that gives a reason, and little of what the client sent. */
function requireMatrixError(reply: { readonly status: number; readonly body: AnyJson }, what: string): void {
  const { status, body } = reply
  const said = `${what}: ${status} ${JSON.stringify(body)}`
  assert.ok(status >= 400 && status < 500, said)
  if (status === 401 && 'flows' in body) return
  assert.match(body.errcode, /^(M_[A-Z_]+|[\w.]+M_[A-Z_]+)$/, said)
  assert.ok(typeof body.error === 'string' && body.error.length > 10 && body.error.length < 1000, said)
}

type Spoilt = { readonly where: readonly string[]; readonly body: unknown }

/** Yields the body with each of its places in turn replaced by a value of every JSON type. */
function* spoilt(body: unknown): Generator<Spoilt> {
  for (const where of places(body)) {
    for (const value of [null, true, 1, 1.5, 'x', [], {}, [null], { x: null }]) {
      yield { where, body: replaced(body, where, value) }
    }
  }
}

function* places(value: unknown, above: readonly string[] = []): Generator<readonly string[]> {
  if (above.length > 0) yield above
  if (typeof value !== 'object' || value === null) return
  for (const [name, member] of Object.entries(value)) yield* places(member, [...above, name])
}

function replaced(body: unknown, [first, ...rest]: readonly string[], value: unknown): unknown {
  if (first === undefined) return value
  const put = (member: unknown): unknown => replaced(member, rest, value)
  if (Array.isArray(body)) return body.map((member, i) => (String(i) === first ? put(member) : member))
  return Object.fromEntries(
    Object.entries(body as object).map(([name, member]) => [name, name === first ? put(member) : member]),
  )
}

describe('a wrong type at any place of the body', () => {
  for (const endpoint of endpoints) {
    test(`is refused by ${nameOf(endpoint)} with the place named and nothing stored, or is harmless`, async () => {
      const device = await stockedDevice()
      const { path, body } = validRequest(endpoint, device)
      const matches = new Ajv({ strict: false }).compile(endpoint.body ?? {})
      assert.ok(matches(body), `the valid request of ${nameOf(endpoint)} is valid`)
      let before = await snapshot(device)
      for (const { where, body: wrong } of spoilt(body)) {
        const what = `${where.join(' > ')} in ${JSON.stringify(wrong)}`
        const reply = await server.call(endpoint.method, path, { token: device.token, body: wrong })
        const now = await snapshot(device)
        if (reply.status === 200) {
          assert.ok(matches(wrong), `was accepted although it violates the schema: ${what}`)
          before = now
          continue
        }
        requireMatrixError(reply, what)
        assert.deepEqual(now, before, what)
        if (matches(wrong)) continue
        assert.ok(
          where.some((name) => reply.body.error.includes(name.slice(0, 20))),
          `does not name the place: ${what} ${reply.body.error}`,
        )
      }
    })
  }
})

describe('a body that is not a JSON object', () => {
  const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text)
  const NOT_JSON: readonly Uint8Array[] = [
    ...['{', 'nonsense', '{"a":1,}', "{'a':1}", '{"a":undefined}', 'NaN', '{}{}', '\uFEFF{}'].map(utf8),
    ...['{"a":"\u0001"}', '{"a":"\\x"}', '{"a":01}', ' ', '\0'].map(utf8),
    Uint8Array.from([0x7b, 0x22, 0x61, 0x22, 0x3a, 0x22, 0xff, 0x22, 0x7d]),
    Uint8Array.from([0x7b, 0x22, 0xed, 0xa0, 0x80, 0x22, 0x3a, 0x31, 0x7d]),
    Uint8Array.from([0xff, 0xfe, 0x7b, 0x00, 0x7d, 0x00]),
  ]

  async function post(device: TestDevice, method: string, path: string, body: Uint8Array): Promise<AnyJson> {
    const response = await fetch(server.url + path, {
      method,
      headers: { authorization: `Bearer ${device.token}`, 'content-type': 'application/json' },
      body: Buffer.from(body),
    })
    return { status: response.status, body: await response.json() }
  }

  for (const endpoint of endpoints) {
    test(`is refused by ${nameOf(endpoint)}`, async () => {
      const device = await stockedDevice()
      const { path } = validRequest(endpoint, device)
      const before = await snapshot(device)
      for (const bytes of NOT_JSON) {
        const reply = await post(device, endpoint.method, path, bytes)
        refused(reply, 400, 'M_NOT_JSON')
      }
      for (const text of ['[]', '1', '"text"', 'null', 'true', '[{}]']) {
        const reply = await post(device, endpoint.method, path, utf8(text))
        refused(reply, 400, 'M_BAD_JSON')
      }
      assert.deepEqual(await snapshot(device), before)
    })
  }

  test('is detected by its bytes, not by its content type', async () => {
    const device = await stockedDevice()
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'nonsense', 'image/png; a=b']) {
      const headers = { 'content-type': type }
      const body = JSON.stringify({ one_time_keys: keys(['T']) })
      const reply = await server.call('POST', UPLOAD, { token: device.token, body, headers })
      assert.equal(ok(reply).one_time_key_counts.signed_curve25519, 3)
    }
  })
})

describe('nested JSON', () => {
  const DEPTH = 19_000
  const deep = (open: string, close: string): string => open.repeat(DEPTH) + close.repeat(DEPTH)

  test('with 19 000 levels is refused at any place, and the process keeps running', async () => {
    const device = await stockedDevice()
    const before = await snapshot(device)
    const arrays = deep('[', ']')
    const objects = `${'{"a":'.repeat(DEPTH)}1${'}'.repeat(DEPTH)}`
    const texts = [arrays, objects].flatMap((bomb) => [
      bomb,
      `{"x":${bomb}}`,
      `{"one_time_keys":{"a:b":${bomb}}}`,
      `{"one_time_keys":{"a:b":{"key":"k","signatures":{},"extra":${bomb}}}}`,
      `{"device_keys":${bomb}}`,
      `{"messages":{"@a:b":{"c":${bomb}}}}`,
      `{"auth":${bomb}}`,
      // The second parse, which checks numbers, is recursive: it must come after the depth check.
      `{"x":1.0,"one_time_keys":{"a:b":${bomb}}}`,
    ])
    for (const endpoint of endpoints) {
      const { path } = validRequest(endpoint, device)
      for (const text of texts) {
        const reply = await server.call(endpoint.method, path, { token: device.token, body: text })
        const tooLarge = text.length > maxBodyBytes(endpoint, server.context.config.sizes)
        if (tooLarge) refused(reply, 413, 'M_TOO_LARGE')
        else refused(reply, 400, 'M_BAD_JSON')
      }
    }
    assert.deepEqual(await snapshot(device), before)
  })

  test('within the depth limit is accepted', async () => {
    const device = await stockedDevice()
    const depth = server.context.config.sizes.jsonDepth - 3
    const body = `{"one_time_keys":{"a:b":{"key":"k","extra":${'['.repeat(depth)}${']'.repeat(depth)}}}}`
    ok(await server.call('POST', UPLOAD, { token: device.token, body }))
    const tooDeep = body.replaceAll('[]', '[[]]')
    refused(await server.call('POST', UPLOAD, { token: device.token, body: tooDeep }), 400, 'M_BAD_JSON')
  })
})

describe('U+0000 and lone surrogates', () => {
  test('are refused as keys and as values, at any depth, by every endpoint', async () => {
    const device = await stockedDevice()
    const before = await snapshot(device)
    for (const endpoint of endpoints) {
      const { path, body } = validRequest(endpoint, device)
      const rest = JSON.stringify(body).slice(0, -1)
      for (const bad of ['\\u0000', '\\ud800', '\\uDFFF', 'a\\u0000b', '\\ud800\\ud800', '\\udc00\\ud800']) {
        for (const member of [`"x":"${bad}"`, `"${bad}":1`, `"x":[{"y":{"${bad}":[]}}]`, `"x":["${bad}"]`]) {
          const text = `${rest},${member}}`
          refused(
            await server.call(endpoint.method, path, { token: device.token, body: text }),
            400,
            'M_BAD_JSON',
          )
        }
      }
    }
    assert.deepEqual(await snapshot(device), before)
  })

  test('are refused in key names and key objects', async () => {
    const device = await stockedDevice()
    for (const bad of ['\\u0000', '\\ud800']) {
      for (const text of [
        `{"one_time_keys":{"alg:${bad}":"k"}}`,
        `{"one_time_keys":{"${bad}:id":"k"}}`,
        `{"one_time_keys":{"alg:id":"${bad}"}}`,
        `{"one_time_keys":{"alg:id":{"key":"${bad}"}}}`,
        `{"fallback_keys":{"alg:id":{"key":"k","${bad}":1}}}`,
      ]) {
        refused(await server.call('POST', UPLOAD, { token: device.token, body: text }), 400, 'M_BAD_JSON')
      }
    }
  })

  test('an escaped pair of surrogates is a character like any other', async () => {
    const device = await stockedDevice()
    const body = '{"one_time_keys":{"alg:\\ud83d\\ude00":{"key":"\\u00e9"}}}'
    ok(await server.call('POST', UPLOAD, { token: device.token, body }))
    assert.deepEqual(await claim(server, device, device, 'alg'), {
      name: 'alg:\u{1F600}',
      key: { key: 'é' },
    })
  })
})

test('a number too large for a double is refused and not stored as null', async () => {
  const device = await stockedDevice()
  for (const number of ['1e400', '-1e400', `1${'0'.repeat(400)}`]) {
    const body = `{"one_time_keys":{"alg:id":{"key":"k","extra":[${number}]}}}`
    refused(await server.call('POST', UPLOAD, { token: device.token, body }), 400, 'M_BAD_JSON')
  }
})

describe('key objects', () => {
  const send = (device: TestDevice, member: string, key: string): Promise<AnyJson> =>
    server.call('POST', UPLOAD, { token: device.token, body: `{"${member}":{"alg:ID/~1":${key}}}` })

  test('accept only numbers of canonical JSON, because only those are returned exactly as sent', async () => {
    const device = await stockedDevice()
    const before = await pool(server, device)
    const inexact = ['12345678901234567890', '9007199254740992', '-9007199254740993', '0.5', '-0', '-0.0']
    for (const number of [...inexact, '1.0', '1e3', '1E+3', '10e-1', '-1.0', '1.5e1', '0e0']) {
      for (const place of [`"x":${number}`, `"x": [0,\n${number} ]`, `"signatures":{"x":{"y":${number}}}`]) {
        for (const member of ['one_time_keys', 'fallback_keys']) {
          const reply = await send(device, member, `{"key":"k1e5",${place}}`)
          const text = refused(reply, 400, 'M_BAD_JSON')
          assert.ok(text.startsWith(`${member}: the key "alg:ID/~1" has a number`), text)
        }
      }
    }
    const deviceKeys = `{"device_keys":{"user_id":"${device.userId}","device_id":"${device.deviceId}","algorithms":[],"keys":{},"signatures":{},"x":1.0}}`
    const reply = await server.call('POST', UPLOAD, { token: device.token, body: deviceKeys })
    assert.match(refused(reply, 400, 'M_BAD_JSON'), /^device_keys has a number/)
    assert.deepEqual(await pool(server, device), before)
  })

  test('keep their integers, and strings that look like other numbers', async () => {
    const device = await stockedDevice()
    const key = '{"key":"k,1.0","a":[9007199254740991,-9007199254740991,0,10],":1e3":"x:1e3,[2.5"}'
    ok(await send(device, 'one_time_keys', key))
    const claimed = await claim(server, device, device, 'alg')
    assert.equal(JSON.stringify(claimed?.key), key)
  })

  test('are refused if malformed, with their name and the reason', async () => {
    const device = await stockedDevice()
    const before = await pool(server, device)
    for (const [key, what] of [
      ['null', 'is null; expected a string'],
      ['1', 'is a number; expected a string'],
      ['true', 'is a boolean'],
      ['[]', 'is an array'],
      ['{}', 'lacks the member "key"'],
      ['{"key":null}', 'has null as its "key"'],
      ['{"key":{}}', 'has an object as its "key"'],
      ['{"key":"k","signatures":null}', 'has null as its "signatures"'],
      ['{"key":"k","signatures":[]}', 'has an array as its "signatures"'],
      ['{"key":"k","signatures":"s"}', 'has a string as its "signatures"'],
      ['""', 'is empty'],
      ['{"key":""}', 'is empty'],
    ] as const) {
      for (const member of ['one_time_keys', 'fallback_keys']) {
        const text = refused(await send(device, member, key), 400, 'M_BAD_JSON')
        assert.ok(text.startsWith(`${member}: the key "alg:ID/~1" ${what}`), text)
      }
    }
    assert.deepEqual(await pool(server, device), before)
  })
})

test('a member whose name has slashes and tildes is named as the client sent it', async () => {
  const device = await stockedDevice()
  const body = { one_time_keys: { '@a/b~c~1:d': { D: 1 } } }
  const reply = await server.call('POST', `${CLIENT}/keys/claim`, { token: device.token, body })
  assert.match(refused(reply, 400, 'M_BAD_JSON'), /^"one_time_keys\.@a\/b~c~1:d\.D" must be string/)
})

describe('names of JavaScript object members', () => {
  const NAMES = ['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'valueOf', '0']
  const own = (entries: readonly (readonly [string, unknown])[]): Record<string, unknown> =>
    Object.fromEntries(entries)

  test('work as algorithms, key IDs and members of key objects, and are returned unchanged', async () => {
    const device = await stockedDevice()
    for (const name of NAMES) {
      const key = own([
        ['key', `material of ${name}`],
        ['signatures', own([[name, own([[name, 'signature']])]])],
        [
          name,
          own([
            [name, 'inner'],
            ['polluted', true],
          ]),
        ],
      ])
      const one_time_keys = own([[`${name}:${name}`, key]])
      const answer = await upload(server, device, { one_time_keys })
      assert.deepEqual(Object.entries(answer['dev.latchkey.outcomes']), [[`${name}:${name}`, 'stored']])
      assert.equal(new Map(Object.entries(answer.one_time_key_counts)).get(name), 1)
      const listed = (await pool(server, device)).algorithms
      assert.equal((new Map(Object.entries(listed)).get(name) as AnyJson).count, 1)
      const wanted = { one_time_keys: { [device.userId]: own([[device.deviceId, name]]) } }
      const claimed = ok(
        await server.call('POST', `${CLIENT}/keys/claim`, { token: device.token, body: wanted }),
      )
      const found = claimed.one_time_keys[device.userId][device.deviceId]
      assert.equal(JSON.stringify(found), JSON.stringify(own([[`${name}:${name}`, key]])))
    }
    assert.equal(({} as AnyJson).polluted, undefined)
  })

  test('work as device IDs and user names', async () => {
    for (const name of ['__proto__', 'constructor']) {
      const device = await server.login(name, name)
      await upload(server, device, { one_time_keys: keys(['A']) })
      assert.equal((await claim(server, device, device))?.name, 'signed_curve25519:A')
      const content = own([[name, own([[name, 1]])]])
      const path = `${CLIENT}/sendToDevice/${name}/${name}`
      const messages = own([[device.userId, own([[name, content]])]])
      ok(await server.call('PUT', path, { token: device.token, body: { messages } }))
      const { body } = await server.call('GET', `${CLIENT}/sync?since=x`, { token: device.token })
      assert.equal(JSON.stringify(body.to_device.events[0].content), JSON.stringify(content))
      assert.deepEqual(body.device_lists.changed, [device.userId])
    }
  })

  test('do nothing if there is no such user, device or member', async () => {
    const device = await stockedDevice()
    const before = await snapshot(device)
    const { token } = device
    for (const name of NAMES) {
      const byUser = own([[name, own([[name, 'alg']])]])
      refused(
        await server.call('POST', `${CLIENT}/keys/claim`, { token, body: { one_time_keys: byUser } }),
        400,
        'M_INVALID_PARAM',
      )
      const query = own([[name, []]])
      const answer = await server.call('POST', `${CLIENT}/keys/query`, {
        token,
        body: { device_keys: query },
      })
      assert.deepEqual(ok(answer).device_keys, {})
      const body = own([[name, own([['all', true]])]])
      const reset = await server.call('POST', `${CLIENT}/keys/reset`, { token, body })
      refused(reset, 400, 'M_MISSING_PARAM')
      const signatures = await server.call('POST', `${CLIENT}/keys/signatures/upload`, {
        token,
        body: own([[name, own([[name, own([])]])]]),
      })
      assert.equal(ok(signatures).failures !== undefined, true)
    }
    assert.deepEqual(await snapshot(device), before)
  })
})
