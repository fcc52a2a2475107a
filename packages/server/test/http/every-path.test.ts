/**
 * Rules for every path: access tokens, CORS, unknown paths and methods, unusual URLs, and errors that reveal no secret.
 * Peers' scenarios: Complement unknown_endpoints_test.go, csapi/apidoc_request_encoding_test.go.
 */
import assert from 'node:assert/strict'
import test, { after, describe } from 'node:test'
import { clientApi } from '../../src/http/client-api/index.ts'
import { sendRaw } from '../support/raw-http.ts'
import { CLIENT, keys, ok, refused, sync, upload, UPLOAD } from '@latchkey/testing/test-client.ts'
import { startTestServer } from '@latchkey/testing/test-server.ts'

const server = await startTestServer()
after(() => server[Symbol.asyncDispose]())
const alice = await server.login('alice', 'ALICE')
const WHOAMI = `${CLIENT}/account/whoami`

describe('access tokens', () => {
  test('are accepted in the header or in the query, in every version of the path', async () => {
    for (const version of ['r0', 'v3', 'unstable']) {
      const path = `/_matrix/client/${version}/account/whoami`
      assert.equal(ok(await server.call('GET', path, { token: alice.token })).user_id, alice.userId)
      const inQuery = await server.call('GET', `${path}?access_token=${alice.token}`)
      assert.equal(ok(inQuery).device_id, alice.deviceId)
      for (const scheme of ['bearer', 'BEARER', 'Bearer  ']) {
        const headers = { authorization: `${scheme} ${alice.token}` }
        ok(await server.call('GET', path, { headers }))
      }
    }
  })

  test('are missing if sent in both places, in none, or in another form', async () => {
    const both = `${WHOAMI}?access_token=${alice.token}`
    refused(await server.call('GET', both, { token: alice.token }), 401, 'M_MISSING_TOKEN')
    refused(await server.call('GET', WHOAMI), 401, 'M_MISSING_TOKEN')
    for (const authorization of [
      '',
      'Bearer',
      'Bearer ',
      alice.token,
      `Basic ${alice.token}`,
      'Bearer a b',
    ]) {
      const reply = await server.call('GET', WHOAMI, { headers: { authorization } })
      refused(reply, 401, 'M_MISSING_TOKEN')
    }
    refused(await server.call('GET', `${WHOAMI}?access_token=`), 401, 'M_MISSING_TOKEN')
    const unknown = await server.call('GET', WHOAMI, { token: `${alice.token}x` })
    refused(unknown, 401, 'M_UNKNOWN_TOKEN')
    assert.equal(unknown.body.soft_logout, false)
  })

  test('are checked before the body is read', async () => {
    refused(await server.call('POST', UPLOAD, { body: 'not json' }), 401, 'M_MISSING_TOKEN')
    refused(await server.call('POST', UPLOAD, { body: '{', token: 'x' }), 401, 'M_UNKNOWN_TOKEN')
  })

  test('never appear in an error', async () => {
    const secret = 'lk_secret_token_that_is_nobodys'
    for (const path of [
      `${WHOAMI}?access_token=${secret}`,
      `${CLIENT}/unknown?access_token=${secret}`,
      `${CLIENT}/%zz?access_token=${secret}`,
      `${CLIENT}/sync?filter=${'x'.repeat(3000)}&access_token=${secret}`,
      `${CLIENT}/${'x'.repeat(5000)}?access_token=${secret}`,
      `${CLIENT}/devices/${'x'.repeat(5000)}?access_token=${secret}`,
    ]) {
      for (const method of ['GET', 'PATCH']) {
        const reply = await server.call(method, path)
        assert.ok(reply.status >= 400 && reply.status < 500, `${path}: ${reply.status}`)
        const text = JSON.stringify(reply.body)
        assert.ok(!text.includes('secret') && text.length < 500, text)
      }
    }
    const header = await server.call('GET', WHOAMI, { token: secret })
    assert.ok(!JSON.stringify(header.body).includes('secret'))
  })
})

describe('paths and methods', () => {
  test('unknown paths are 404 M_UNRECOGNIZED, with and without a token', async () => {
    for (const path of [
      '/',
      '/_matrix',
      `${CLIENT}/unknown`,
      `${CLIENT}/keys/upload/${alice.deviceId}`,
      `${CLIENT}/keys/upload/`,
      '/_matrix/client/v1/keys/upload',
      '/_matrix/client/r0/keys/device_signing/upload',
      '/_matrix/federation/v1/user/keys/claim',
      '/_matrix/key/v2/unknown',
      '/_matrix/media/v3/unknown',
      `${CLIENT}/dehydrated_device`,
      '/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device',
    ]) {
      for (const method of ['GET', 'POST', 'PUT', 'DELETE', 'PATCH']) {
        const body = method === 'GET' ? {} : { body: '{}' }
        refused(await server.call(method, path, body), 404, 'M_UNRECOGNIZED')
        refused(await server.call(method, path, { token: alice.token, ...body }), 404, 'M_UNRECOGNIZED')
      }
    }
  })

  test('a wrong method on a known path is 405 M_UNRECOGNIZED, for every endpoint', async () => {
    const endpoints = clientApi(server.context.config)
    for (const { path } of endpoints) {
      const taken = new Set(
        endpoints.filter((each) => each.path === path).map((each) => each.method as string),
      )
      const url = (path.startsWith('/_matrix') ? path : CLIENT + path).replaceAll(/:\w+/g, 'x')
      for (const method of ['GET', 'POST', 'PUT', 'DELETE', 'PATCH']) {
        if (taken.has(method)) continue
        refused(await server.call(method, url), 405, 'M_UNRECOGNIZED')
      }
    }
  })

  test('any other method is 405 with an Allow header on a known path, and 404 on an unknown path', async () => {
    for (const method of ['HEAD', 'TRACE', 'PATCH', 'PROPFIND', 'QUERY', 'SEARCH', 'LOCK', 'M-SEARCH']) {
      for (const [path, allow] of [
        [`${CLIENT}/devices/DEVICE`, 'get, put, delete, options'],
        [`${CLIENT}/devices/%2F?access_token=x`, 'get, put, delete, options'],
        [UPLOAD, 'post, options'],
        [UPLOAD.replace('keys', '%6beys'), 'post, options'],
        ['/_matrix/client/versions', 'get, options'],
        [`${CLIENT}/unknown`, undefined],
        [`${CLIENT}/devices/a/b`, undefined],
        ['/_matrix/client/v3xkeys/upload', undefined],
      ] as const) {
        const close = 'Host: x\r\nConnection: close\r\n\r\n'
        const answer = await sendRaw(server, `${method} ${path} HTTP/1.1\r\n${close}`)
        assert.equal(answer.status, allow === undefined ? 404 : 405, `${method} ${path}`)
        assert.equal(/^allow: (.*)$/m.exec(answer.head)?.[1]?.trim(), allow, `${method} ${path}`)
        assert.match(answer.head, /access-control-allow-origin: \*/)
        if (method !== 'HEAD') assert.equal(JSON.parse(answer.text).errcode, 'M_UNRECOGNIZED')
      }
    }
  })

  test('a body for an unknown path or with a wrong method is ignored', async () => {
    refused(await server.call('POST', `${CLIENT}/unknown`, { body: 'no json' }), 404, 'M_UNRECOGNIZED')
    refused(await server.call('PUT', UPLOAD, { body: 'no json' }), 405, 'M_UNRECOGNIZED')
  })

  test('malformed percent-encoding and NUL are refused without an internal error', async () => {
    for (const path of [
      `${CLIENT}/%`,
      `${CLIENT}/%zz`,
      `${CLIENT}/devices/%`,
      `${CLIENT}/devices/%ff%fe`,
      `${CLIENT}/devices/%00`,
      `${CLIENT}/devices/%ed%a0%80`,
      `${CLIENT}/user/%00/filter/0`,
      `${CLIENT}/user/${alice.userId}/filter/%00`,
      `${CLIENT}/user/${alice.userId}/account_data/%00`,
      `${CLIENT}/sync?filter=%00`,
      `${CLIENT}/sync?filter=%`,
      `${CLIENT}/sync?timeout=%00`,
      '/%2e%2e/%2e%2e/etc/passwd',
      '//',
      '/?%',
    ]) {
      const reply = await server.call('GET', path, { token: alice.token })
      assert.ok(reply.status >= 400 && reply.status < 500, `${path}: ${reply.status}`)
      assert.match(reply.body.errcode, /^M_/)
    }
    for (const path of [
      '%00/1',
      'm.test/%00',
      'm.test/%',
      `m.test/${'x'.repeat(300)}`,
      `${'x'.repeat(300)}/1`,
    ]) {
      const reply = await server.call('PUT', `${CLIENT}/sendToDevice/${path}`, {
        token: alice.token,
        body: { messages: {} },
      })
      assert.equal(reply.status, 400, path)
    }
    await sync(server, alice, { since: '\0' })
  })

  test('percent-encoded and bare user IDs in a path are equal', async () => {
    for (const userId of [alice.userId, encodeURIComponent(alice.userId), '%40alice%3atest%2Eexample']) {
      const reply = await server.call('POST', `${CLIENT}/user/${userId}/filter`, {
        token: alice.token,
        body: {},
      })
      ok(reply)
    }
  })

  test('very long parameters and URLs are refused with a Matrix error', async () => {
    const { token } = alice
    const long = await server.call('GET', `${CLIENT}/devices/${'x'.repeat(2000)}`, { token })
    assert.ok(refused(long, 404, 'M_NOT_FOUND').length < 300)
    const longer = await server.call('GET', `${CLIENT}/devices/${'x'.repeat(8000)}`, { token })
    refused(longer, 414, 'M_TOO_LARGE')
    const request = `GET ${CLIENT}/sync?since=${'x'.repeat(100_000)} HTTP/1.1\r\nHost: x\r\n\r\n`
    const answer = await sendRaw(server, request)
    assert.equal(answer.status, 431)
    assert.equal(JSON.parse(answer.text).errcode, 'M_TOO_LARGE')
  })

  test('the last value of a repeated query parameter counts', async () => {
    const path = `${WHOAMI}?access_token=nonsense&access_token=${alice.token}`
    assert.equal(ok(await server.call('GET', path)).user_id, alice.userId)
    const timeout = `${CLIENT}/sync?timeout=nonsense&timeout=0`
    ok(await server.call('GET', timeout, { token: alice.token }))
    for (const name of ['__proto__', 'constructor', 'a[b]', 'a[]', 'toString']) {
      ok(await server.call('GET', `${WHOAMI}?${name}=1&${name}=2`, { token: alice.token }))
    }
  })

  test('no body, an empty body and {} are equal', async () => {
    const { token } = await server.login('alice', 'EMPTY')
    for (const options of [{}, { body: '' }, { body: '{}' }, { body: {} }]) {
      ok(await server.call('POST', UPLOAD, { token, ...options }))
    }
    ok(await server.call('POST', `${CLIENT}/logout`, { token }))
  })
})

describe('CORS', () => {
  const ALLOWED = ['x-requested-with', 'content-type', 'authorization', 'date']

  test('is on every answer with any status', async () => {
    for (const [path, status] of [
      ['/_matrix/client/versions', 200],
      [WHOAMI, 401],
      [`${CLIENT}/unknown`, 404],
      [UPLOAD, 405],
      [`${CLIENT}/%zz`, 400],
    ] as const) {
      const response = await fetch(server.url + path, { headers: { origin: 'https://client.example' } })
      await response.text()
      assert.equal(response.status, status, path)
      assert.equal(response.headers.get('access-control-allow-origin'), '*', path)
      assert.match(response.headers.get('content-type') ?? '', /^application\/json/)
    }
  })

  test('answers OPTIONS on every path, preflight or not, without a token', async () => {
    const preflight = {
      origin: 'https://client.example',
      'access-control-request-method': 'PUT',
      'access-control-request-headers': 'authorization,content-type',
    }
    for (const path of [UPLOAD, `${CLIENT}/sync`, '/_matrix/client/versions', `${CLIENT}/unknown`, '/']) {
      for (const headers of [preflight, {}]) {
        const response = await fetch(server.url + path, { method: 'OPTIONS', headers })
        assert.ok(response.status === 200 || response.status === 204, `${path}: ${response.status}`)
        assert.equal(response.headers.get('access-control-allow-origin'), '*')
        const allowed = response.headers.get('access-control-allow-headers')?.toLowerCase() ?? ''
        for (const header of ALLOWED) assert.ok(allowed.includes(header), `${path} allows ${header}`)
        const methods = response.headers.get('access-control-allow-methods') ?? ''
        for (const method of ['GET', 'POST', 'PUT', 'DELETE']) assert.ok(methods.includes(method))
      }
    }
  })
})

describe('malformed HTTP', () => {
  test('is answered with a 400 Matrix error, and the server keeps running', async () => {
    for (const bytes of [
      'nonsense\r\n\r\n',
      'GET / HTTP/9.9\r\n\r\n',
      'GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n',
      'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      '\u0016\u0003\u0001\u0002',
    ]) {
      const answer = await sendRaw(server, bytes)
      assert.equal(answer.status, 400, bytes)
      assert.equal(JSON.parse(answer.text).errcode, 'M_UNKNOWN')
    }
    await upload(server, alice, { one_time_keys: keys(['A']) })
  })
})
