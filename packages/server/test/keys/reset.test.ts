/** `/keys/reset` (MSC4162) with every optional member of extensions.md, and `keys/pool`, over HTTP. */
import assert from 'node:assert/strict'
import test, { after, describe } from 'node:test'
import { DEFAULT_RATES } from '../../src/config/config.ts'
import {
  claim,
  claimNames,
  CURVE,
  fallback,
  keyObject,
  keys,
  named,
  ok,
  POOL,
  pool,
  refused,
  reset,
  tryReset,
  upload,
} from '@latchkey/testing/test-client.ts'
import { startTestServer, type TestDevice } from '@latchkey/testing/test-server.ts'

const server = await startTestServer()
after(() => server[Symbol.asyncDispose]())
let users = 0
/** A device of a new user, with three one-time keys and a fallback key. */
async function stockedDevice(): Promise<TestDevice> {
  const device = await server.login(`user${++users}`, `DEV${users}`)
  await upload(server, device, {
    one_time_keys: { ...keys(['A', 'B', 'C']), 'other:1': 'key' },
    fallback_keys: fallback('F'),
  })
  return device
}
const bob = await server.login('bob', 'BOB')

const sorted = (names: readonly string[]): string[] => names.toSorted()

describe('POST /keys/reset', () => {
  test('all withdraws every algorithm, ignores key_ids, and keeps the fallback key', async () => {
    const alice = await stockedDevice()
    const before = await pool(server, alice)
    const answer = await reset(server, alice, { all: true, key_ids: ['other:1', 'nonsense:1'] })
    assert.deepEqual(answer.device_one_time_keys_count, { [CURVE]: 0, other: 0 })
    assert.deepEqual(sorted(answer['dev.latchkey.withdrawn']), ['other:1', ...['A', 'B', 'C'].map(named)])
    assert.deepEqual(answer['dev.latchkey.absent'], [])
    assert.ok(answer['dev.latchkey.key_pool'].generation > before.generation)
    assert.equal((await claim(server, bob, alice))?.name, named('F'))
  })

  test('key_ids withdraws each listed key once, and returns absent ones in the order of the request', async () => {
    const alice = await stockedDevice()
    assert.equal((await claim(server, bob, alice))?.name, named('A'))
    const answer = await reset(server, alice, {
      key_ids: [named('Z'), named('B'), named('B'), named('A'), 'unheard:of', named('Z')],
    })
    assert.deepEqual(answer['dev.latchkey.withdrawn'], [named('B')])
    assert.deepEqual(answer['dev.latchkey.absent'], [named('Z'), named('A'), 'unheard:of'])
    assert.deepEqual(answer.device_one_time_keys_count, { [CURVE]: 1, other: 1 })
    assert.deepEqual(await claimNames(server, bob, alice, 2), [named('C'), named('F')])
  })

  test('an empty list changes nothing', async () => {
    const alice = await stockedDevice()
    const before = await pool(server, alice)
    const answer = await reset(server, alice, { all: false, key_ids: [] })
    assert.deepEqual(answer.device_one_time_keys_count, { [CURVE]: 3, other: 1 })
    assert.deepEqual(await pool(server, alice), before)
  })

  test('a request without a valid all or key_ids is refused and changes nothing', async () => {
    const alice = await stockedDevice()
    const before = await pool(server, alice)
    for (const [body, errcode] of [
      [{}, 'M_MISSING_PARAM'],
      [{ all: false }, 'M_MISSING_PARAM'],
      [{ all: 'true' }, 'M_BAD_JSON'],
      [{ all: 1 }, 'M_BAD_JSON'],
      [{ all: null }, 'M_BAD_JSON'],
      [{ all: [true] }, 'M_BAD_JSON'],
      [{ key_ids: 'signed_curve25519:A' }, 'M_BAD_JSON'],
      [{ key_ids: [named('A'), 'no colon'] }, 'M_BAD_JSON'],
      [{ key_ids: [named('A'), 'a:b:c'] }, 'M_BAD_JSON'],
      [{ key_ids: [named('A'), null] }, 'M_BAD_JSON'],
    ] as const) {
      const text = refused(await tryReset(server, alice, body), 400, errcode)
      assert.match(text, /all|key_ids/)
    }
    assert.deepEqual(await pool(server, alice), before)
  })

  test('withdrawn material may be uploaded again, under its own or another ID', async () => {
    const alice = await stockedDevice()
    await reset(server, alice, { all: true })
    const answer = await upload(server, alice, {
      one_time_keys: { ...keys(['A']), [named('B2')]: keyObject('k/B'), [named('C')]: keyObject('new') },
    })
    assert.deepEqual(Object.values(answer['dev.latchkey.outcomes']), ['stored', 'stored', 'stored'])
  })

  test('changes only the calling device', async () => {
    const [alice, other] = [await stockedDevice(), await stockedDevice()]
    const before = await pool(server, other)
    await reset(server, alice, { all: true })
    assert.deepEqual(await pool(server, other), before)
  })

  test('a failed precondition is a 409 with the current key_pool, and changes nothing', async () => {
    const alice = await stockedDevice()
    const { epoch, version, generation } = await pool(server, alice)
    await claim(server, bob, alice)
    const before = await pool(server, alice)
    for (const wrong of [
      { 'dev.latchkey.if_version': version },
      { 'dev.latchkey.if_generation': generation + 1 },
      { 'dev.latchkey.if_generation': generation, 'dev.latchkey.epoch': 'of-another-time' },
    ]) {
      const reply = await tryReset(server, alice, { all: true, ...wrong })
      refused(reply, 409, 'DEV.LATCHKEY.M_POOL_CHANGED')
      const keyPool = reply.body['dev.latchkey.key_pool']
      assert.deepEqual([keyPool.epoch, keyPool.version], [epoch, before.version])
    }
    assert.deepEqual(await pool(server, alice), before)
    const right = {
      'dev.latchkey.if_version': before.version,
      'dev.latchkey.if_generation': generation,
      'dev.latchkey.epoch': epoch,
    }
    const answer = await reset(server, alice, { all: true, ...right })
    assert.equal(answer['dev.latchkey.key_pool'].generation > generation, true)
    refused(await tryReset(server, alice, { all: true, ...right }), 409, 'DEV.LATCHKEY.M_POOL_CHANGED')
  })

  test('a request ID replays the first answer for a day, and changes nothing again', async () => {
    let now = Date.now()
    await using timed = await startTestServer({}, { now: () => now })
    const alice = await timed.login('alice', 'A')
    await upload(timed, alice, { one_time_keys: keys(['A', 'B']) })
    const body = { all: true, 'dev.latchkey.request_id': 'once', one_time_keys: keys(['C']) }
    const first = await reset(timed, alice, body)
    await upload(timed, alice, { one_time_keys: keys(['D']) })
    const before = await pool(timed, alice)
    now += 23 * 60 * 60 * 1000
    assert.deepEqual(await reset(timed, alice, body), first)
    assert.deepEqual(await pool(timed, alice), before)
    now += 2 * 60 * 60 * 1000
    const later = await reset(timed, alice, { all: true, 'dev.latchkey.request_id': 'once' })
    assert.deepEqual(later['dev.latchkey.withdrawn'], [named('C'), named('D')])
  })

  test('a request ID applies to one device only', async () => {
    const [alice, other] = [await stockedDevice(), await stockedDevice()]
    const body = { all: true, 'dev.latchkey.request_id': 'shared' }
    await reset(server, alice, body)
    assert.equal((await reset(server, other, body))['dev.latchkey.withdrawn'].length, 4)
  })

  test('replacements are stored in the same transaction; one that is already available is kept', async () => {
    const alice = await stockedDevice()
    const answer = await reset(server, alice, {
      all: true,
      one_time_keys: keys(['B', 'N']),
      fallback_keys: fallback('G'),
    })
    assert.deepEqual(sorted(answer['dev.latchkey.withdrawn']), ['other:1', named('A'), named('C')])
    assert.deepEqual(answer['dev.latchkey.outcomes'], {
      [named('B')]: 'already_stored',
      [named('N')]: 'stored',
    })
    assert.deepEqual(answer['dev.latchkey.fallback_outcomes'], { [named('G')]: 'stored' })
    assert.deepEqual(answer.device_one_time_keys_count, { [CURVE]: 2, other: 0 })
    assert.deepEqual(await claimNames(server, bob, alice, 3), [named('B'), named('N'), named('G')])
  })

  test('an ID whose key is withdrawn in the same request accepts a new key', async () => {
    const alice = await stockedDevice()
    const answer = await reset(server, alice, {
      key_ids: [named('A')],
      one_time_keys: { [named('A')]: keyObject('new') },
    })
    assert.deepEqual(answer['dev.latchkey.withdrawn'], [named('A')])
    assert.deepEqual(answer['dev.latchkey.outcomes'], { [named('A')]: 'stored' })
  })

  test('a conflict among the replacements is a 400 that withdraws nothing', async () => {
    const alice = await stockedDevice()
    const before = await pool(server, alice)
    const reply = await tryReset(server, alice, {
      key_ids: [named('A')],
      one_time_keys: { [named('B')]: keyObject('other'), ...keys(['N']) },
      fallback_keys: fallback('G'),
    })
    refused(reply, 400, 'io.github.johennes.msc4420.M_DUPLICATE_ONE_TIME_KEY')
    assert.deepEqual(Object.keys(reply.body['dev.latchkey.conflicts']), [named('B')])
    assert.deepEqual(await pool(server, alice), before)
  })

  test('is served at the stable path while the configuration enables it', async () => {
    const alice = await stockedDevice()
    const stable = '/_matrix/client/v3/keys/reset'
    const answer = ok(await server.call('POST', stable, { token: alice.token, body: { key_ids: [] } }))
    assert.deepEqual(answer.device_one_time_keys_count, { [CURVE]: 3, other: 1 })
    await using without = await startTestServer({ stableReset: false })
    const other = await without.login('alice', 'A')
    const reply = await without.call('POST', stable, { token: other.token, body: { all: true } })
    refused(reply, 404, 'M_UNRECOGNIZED')
    assert.deepEqual((await reset(without, other, { all: true })).device_one_time_keys_count, { [CURVE]: 0 })
  })

  test('is rate-limited per device', async () => {
    const rates = { ...DEFAULT_RATES, resetPerDevice: { burst: 2, perSecond: 0.1 } }
    await using limited = await startTestServer({ rates })
    const [alice, other] = [await limited.login('alice', 'A'), await limited.login('bob', 'B')]
    await reset(limited, alice, { all: true })
    await reset(limited, alice, { all: true })
    const reply = await tryReset(limited, alice, { all: true })
    refused(reply, 429, 'M_LIMIT_EXCEEDED')
    assert.ok(reply.body.retry_after_ms > 0)
    await reset(limited, other, { all: true })
  })

  test('after an identity change, replacements must be signed by the current identity', async () => {
    const alice = await stockedDevice()
    const identity = (key: string): Record<string, unknown> => ({
      user_id: alice.userId,
      device_id: alice.deviceId,
      algorithms: [],
      keys: { [`ed25519:${alice.deviceId}`]: key },
      signatures: {},
    })
    await upload(server, alice, { device_keys: identity('one') })
    await upload(server, alice, { device_keys: identity('two') })
    const reply = await tryReset(server, alice, { all: true, one_time_keys: keys(['N']) })
    refused(reply, 400, 'M_INVALID_SIGNATURE')
  })
})

describe('GET dev.latchkey/keys/pool', () => {
  test('lists available keys in issue order and issued keys newest first, but never the claimer', async () => {
    const alice = await stockedDevice()
    await claimNames(server, bob, alice, 2)
    const answer = await pool(server, alice)
    const { available, issued, count } = answer.algorithms[CURVE]
    const keyIds = (list: readonly { key_id: string }[]): string[] => list.map((key) => key.key_id)
    assert.deepEqual([keyIds(available), keyIds(issued), count], [['C'], ['B', 'A'], 1])
    assert.ok(!JSON.stringify(answer).includes(bob.userId))
  })

  test('returns issued keys in pages', async () => {
    const alice = await stockedDevice()
    await claimNames(server, bob, alice, 3)
    const seen: string[] = []
    let from: string | undefined
    do {
      const path = `${POOL}?limit=1${from === undefined ? '' : `&from=${encodeURIComponent(from)}`}`
      const page = ok(await server.call('GET', path, { token: alice.token }))
      for (const { issued } of Object.values<{ issued: { key_id: string }[] }>(page.algorithms))
        seen.push(...issued.map((key) => key.key_id))
      from = page.next_batch
    } while (from !== undefined)
    assert.deepEqual(seen, ['C', 'B', 'A'])
    for (const limit of ['0', '-1', 'x', '1.5']) {
      const reply = await server.call('GET', `${POOL}?limit=${limit}`, { token: alice.token })
      refused(reply, 400, 'M_INVALID_PARAM')
    }
    for (const bad of ['x', '-1', '99999999999999999999', "'"]) {
      const reply = await server.call('GET', `${POOL}?from=${bad}`, { token: alice.token })
      assert.ok(reply.status < 500, `from=${bad}: ${reply.status}`)
    }
  })

  test('returns no algorithms for a device without keys', async () => {
    const fresh = await server.login('fresh', 'FRESH')
    const answer = await pool(server, fresh)
    assert.deepEqual(answer.algorithms, {})
  })
})
