/** Filters, account data, and the small endpoints that clients read before they sync. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { DEFAULT_SIZES } from '../../src/config/config.ts'
import { longPoll } from '@latchkey/testing/test-client.ts'
import { type AnyJson, startTestServer } from '@latchkey/testing/test-server.ts'

const V3 = '/_matrix/client/v3'

suite('filters', () => {
  test('a filter is read back by its ID, and an equal filter has the same ID', async () => {
    await using server = await startTestServer()
    const { token, userId } = await server.login('alice')
    const path = `${V3}/user/${encodeURIComponent(userId)}/filter`
    const filter = { room: { timeline: { limit: 0.5 } }, ['__proto__']: { a: 1 } }
    const first = await server.call('POST', path, { token, body: filter })
    assert.equal(first.status, 200)
    const other = await server.call('POST', path, { token, body: {} })
    const again = await server.call('POST', path, { token, body: filter })
    assert.equal(again.body.filter_id, first.body.filter_id)
    assert.notEqual(other.body.filter_id, first.body.filter_id)
    const read = await server.call('GET', `${path}/${first.body.filter_id}`, { token })
    assert.deepEqual(read, { status: 200, body: filter })
    const sync = await server.call('GET', `${V3}/sync?filter=${first.body.filter_id}`, { token })
    assert.equal(sync.status, 200)
  })

  test('an unknown filter is not found', async () => {
    await using server = await startTestServer()
    const { token, userId } = await server.login('alice')
    for (const id of ['0', '00', '-1', '9'.repeat(30), 'x']) {
      const { status, body } = await server.call('GET', `${V3}/user/${userId}/filter/${id}`, { token })
      assert.equal(status, 404)
      assert.equal(body.errcode, 'M_NOT_FOUND')
    }
  })

  test('filters and account data of another user are forbidden', async () => {
    await using server = await startTestServer()
    const { token } = await server.login('alice')
    const bob = await server.login('bob')
    const user = `${V3}/user/${bob.userId}`
    for (const [method, path] of [
      ['POST', '/filter'],
      ['GET', '/filter/0'],
      ['PUT', '/account_data/com.example'],
      ['GET', '/account_data/com.example'],
    ] as const) {
      const answer = await server.call(method, user + path, { token, ...(method !== 'GET' && { body: {} }) })
      assert.equal(answer.status, 403, path)
      assert.equal(answer.body.errcode, 'M_FORBIDDEN')
    }
  })

  test('a filter that is too large or not an object is refused; one too many replaces the oldest', async () => {
    const sizes = { ...DEFAULT_SIZES, filterBytes: 100, filtersPerUser: 2 }
    await using server = await startTestServer({ sizes })
    const { token, userId } = await server.login('alice')
    const path = `${V3}/user/${userId}/filter`
    const post = (body: unknown): Promise<AnyJson> => server.call('POST', path, { token, body })
    assert.equal((await post([])).body.errcode, 'M_BAD_JSON')
    assert.equal((await post({ x: 'x'.repeat(100) })).status, 413)
    assert.equal((await post({ n: 1 })).status, 200)
    assert.equal((await post({ n: 2 })).status, 200)
    assert.deepEqual((await post({ n: 2 })).body, { filter_id: '1' })
    assert.deepEqual((await post({ n: 3 })).body, { filter_id: '2' })
    const get = (id: string): Promise<AnyJson> => server.call('GET', `${path}/${id}`, { token })
    assert.equal((await get('0')).status, 404)
    assert.deepEqual((await get('1')).body, { n: 2 })
  })
})

suite('account data', () => {
  test('a stored value is returned, and wakes a waiting sync of another device', {
    timeout: 20_000,
  }, async () => {
    await using server = await startTestServer()
    const phone = await server.login('alice', 'PHONE')
    const tablet = await server.login('alice', 'TABLET')
    const path = `${V3}/user/${phone.userId}/account_data/${encodeURIComponent('com.example/ü')}`
    const first = await server.call('GET', `${V3}/sync`, { token: tablet.token })
    const since = first.body.next_batch
    const waiting = await longPoll(server, tablet, since)
    const content = { a: [1, 2.5, null], '': {} }
    const put = await server.call('PUT', path, { token: phone.token, body: content })
    assert.deepEqual(put, { status: 200, body: {} })
    const { body } = await waiting.answer
    assert.deepEqual(body.account_data.events, [{ type: 'com.example/ü', content }])
    const got = await server.call('GET', path, { token: tablet.token })
    assert.deepEqual(got, { status: 200, body: content })
  })

  test('a later value replaces the earlier one', async () => {
    await using server = await startTestServer()
    const { token, userId } = await server.login('alice')
    const path = `${V3}/user/${userId}/account_data/com.example`
    for (const n of [1, 2]) await server.call('PUT', path, { token, body: { n } })
    assert.deepEqual((await server.call('GET', path, { token })).body, { n: 2 })
    const { body } = await server.call('GET', `${V3}/sync`, { token })
    assert.deepEqual(body.account_data.events, [{ type: 'com.example', content: { n: 2 } }])
  })

  test('a type that was never stored is not found', async () => {
    await using server = await startTestServer()
    const { token, userId } = await server.login('alice')
    const { status, body } = await server.call('GET', `${V3}/user/${userId}/account_data/x`, { token })
    assert.equal(status, 404)
    assert.equal(body.errcode, 'M_NOT_FOUND')
  })

  test('reserved types, bodies other than objects, and values over the limits are refused', async () => {
    await using server = await startTestServer()
    const { token, userId } = await server.login('alice')
    const put = (type: string, body: unknown): Promise<AnyJson> =>
      server.call('PUT', `${V3}/user/${userId}/account_data/${type}`, { token, body })
    for (const type of ['m.fully_read', 'm.push_rules']) {
      const { status, body } = await put(type, {})
      assert.equal(status, 405)
      assert.equal(body.errcode, 'M_BAD_JSON')
    }
    assert.equal((await put('x', [])).body.errcode, 'M_BAD_JSON')
    assert.equal((await put('x', '"text"')).body.errcode, 'M_BAD_JSON')
    assert.equal((await put('x', { x: 'ü'.repeat(40_000) })).status, 413)
    assert.equal((await put('x'.repeat(256), {})).body.errcode, 'M_INVALID_PARAM')
    const { body: nul } = await put('x%00', {})
    assert.equal(nul.errcode, 'M_INVALID_PARAM')
    assert.ok(!nul.error.includes('body'), nul.error)
    const { status } = await server.call('GET', `${V3}/user/${userId}/account_data/x`, { token })
    assert.equal(status, 404)
  })
})

suite('total size of account data', () => {
  test('the total is limited in bytes per user, and a smaller value frees space', async () => {
    const sizes = { ...DEFAULT_SIZES, accountDataTotalBytes: 300 }
    await using server = await startTestServer({ sizes })
    const { token, userId } = await server.login('alice')
    const put = (type: string, length: number): Promise<AnyJson> =>
      server.call('PUT', `${V3}/user/${userId}/account_data/${type}`, {
        token,
        body: { x: 'ü'.repeat(length / 2) },
      })
    // Type and braces take nine bytes each.
    assert.equal((await put('a', 141)).status, 200)
    assert.equal((await put('b', 141)).status, 200)
    assert.equal((await put('b', 141)).status, 200)
    const { status, body } = await put('c', 0)
    assert.deepEqual([status, body.errcode], [413, 'M_TOO_LARGE'])
    assert.match(body.error, /at most 300/)
    assert.equal((await put('b', 100)).status, 200)
    assert.equal((await put('c', 0)).status, 200)
  })
})

suite('requests of clients before their first sync', () => {
  const RULES = { override: [], content: [], room: [], sender: [], underride: [] }

  test('push rules are empty, with and without a trailing slash', async () => {
    await using server = await startTestServer()
    const { token } = await server.login('alice')
    for (const path of ['/pushrules/', '/pushrules']) {
      assert.deepEqual((await server.call('GET', V3 + path, { token })).body, { global: RULES })
    }
    for (const path of ['/pushrules/global/', '/pushrules/global']) {
      assert.deepEqual((await server.call('GET', V3 + path, { token })).body, RULES)
    }
  })

  test('capabilities name what the server does not support', async () => {
    await using server = await startTestServer()
    const { token } = await server.login('alice')
    const { body } = await server.call('GET', `${V3}/capabilities`, { token })
    assert.deepEqual(body.capabilities['m.change_password'], { enabled: true })
    assert.deepEqual(body.capabilities['m.get_login_token'], { enabled: false })
  })

  test('there is no key backup yet', async () => {
    await using server = await startTestServer()
    const { token } = await server.login('alice')
    const { status, body } = await server.call('GET', `${V3}/room_keys/version`, { token })
    assert.equal(status, 404)
    assert.deepEqual(body, { errcode: 'M_NOT_FOUND', error: 'No current backup version' })
  })

  test('every one of these requests needs an access token', async () => {
    await using server = await startTestServer()
    for (const path of ['/pushrules/', '/capabilities', '/room_keys/version', '/keys/changes?from=x']) {
      const { status, body } = await server.call('GET', V3 + path)
      assert.equal(status, 401)
      assert.equal(body.errcode, 'M_MISSING_TOKEN')
    }
  })
})
