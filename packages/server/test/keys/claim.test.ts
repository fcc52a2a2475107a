/**
 * `/keys/claim` over HTTP: order, at most one issue, missing keys, failures, and the depletion defence. Peers'
 * scenarios: Complement TestKeyClaimOrdering and "Can claim one time key", SyTest 03-one-time-keys, Synapse
 * claim_one_time_key_bulk.
 */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import { DEFAULT_RATES } from '../../src/config/config.ts'
import { DEFAULT_POOL_POLICY } from '../../src/pool/policy.ts'
import {
  CLAIM,
  claim,
  claimNames,
  CURVE,
  fallback,
  ids,
  keyObject,
  keys,
  named,
  ok,
  pool,
  refused,
  sync,
  upload,
} from '@latchkey/testing/test-client.ts'
import { sharedServer } from '../support/shared-server.ts'
import { startTestServer } from '@latchkey/testing/test-server.ts'

const { server, bob, newDevice, loginAgain } = await sharedServer()

function claimBody(body: unknown, query = ''): Promise<{ status: number; body: Record<string, unknown> }> {
  return server.call('POST', CLAIM + query, { token: bob.token, body })
}

describe('POST /keys/claim', () => {
  test('returns the key exactly as uploaded, and omits the user the next time (Complement, SyTest 03)', async () => {
    const alice = await newDevice()
    const key = keyObject('seed', { 'org.example.extra': { nested: ['é', null, 1] } })
    await upload(server, alice, { one_time_keys: { [named('A')]: key, 'string_algorithm:1': 'plain' } })
    assert.deepEqual(await claim(server, bob, alice), { name: named('A'), key })
    assert.deepEqual(await claim(server, bob, alice, 'string_algorithm'), {
      name: 'string_algorithm:1',
      key: 'plain',
    })
    const body = { one_time_keys: { [alice.userId]: { [alice.deviceId]: CURVE } } }
    assert.deepEqual(ok(await claimBody(body)), { one_time_keys: {}, failures: {} })
  })

  test('issues by upload order, not by key ID (Complement TestKeyClaimOrdering, MSC4225)', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: keys(['1']) })
    await upload(server, alice, { one_time_keys: keys(['0']) })
    assert.deepEqual(await claimNames(server, bob, alice, 3), [named('1'), named('0'), undefined])
  })

  test('issues the keys of one upload by key ID, in code points', async () => {
    const alice = await newDevice()
    const shuffled = ['b', '\u{1F600}', 'B', '\uFF5E', 'a', '10', '9']
    await upload(server, alice, { one_time_keys: keys(shuffled) })
    const expected = ['10', '9', 'B', 'a', 'b', '\uFF5E', '\u{1F600}'].map(named)
    assert.deepEqual(await claimNames(server, bob, alice, 7), expected)
  })

  test('claim_order key_id issues the lowest available ID first, but still evicts by upload order', async () => {
    const pools = { ...DEFAULT_POOL_POLICY, claimOrder: 'key_id', keysPerPool: 3 } as const
    await using lowest = await startTestServer({ pools })
    const [alice, other] = [await lowest.login('alice', 'A'), await lowest.login('bob', 'B')]
    await upload(lowest, alice, { one_time_keys: keys(['1']) })
    const answer = await upload(lowest, alice, { one_time_keys: keys(['3', '0', '2']) })
    assert.deepEqual(answer['dev.latchkey.evicted'], [named('1')])
    assert.deepEqual(await claimNames(lowest, other, alice, 4), [...['0', '2', '3'].map(named), undefined])
  })

  test('returns keys of many devices and algorithms in one request (Synapse claim_one_time_key_bulk)', async () => {
    const devices = [await newDevice(), await newDevice(), await newDevice()]
    for (const device of devices) {
      await upload(server, device, {
        one_time_keys: { 'alg1:k1': 'a', 'alg1:k2': 'b', 'alg2:k3': { key: device.deviceId } },
      })
    }
    const wanted = devices.map(({ userId, deviceId }, i) => [
      userId,
      { [deviceId]: i < 2 ? 'alg1' : 'alg2', NOBODY: 'alg1' },
    ])
    const answer = ok(await claimBody({ one_time_keys: Object.fromEntries(wanted) }))
    assert.deepEqual(
      answer.one_time_keys,
      Object.fromEntries(
        devices.map(({ userId, deviceId }, i) => [
          userId,
          { [deviceId]: i < 2 ? { 'alg1:k1': 'a' } : { 'alg2:k3': { key: deviceId } } },
        ]),
      ),
    )
  })

  test('omits unknown users, devices and algorithms without reporting failures', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: keys(['A']) })
    const one_time_keys = {
      [alice.userId]: { [alice.deviceId]: 'unknown_algorithm', UNKNOWN: CURVE },
      '@unknown:test.example': { X: CURVE },
    }
    assert.deepEqual(ok(await claimBody({ one_time_keys })), { one_time_keys: {}, failures: {} })
    assert.equal((await pool(server, alice)).algorithms[CURVE].count, 1)
  })

  test('reports users of another server in failures, and answers for local ones', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: keys(['A']) })
    const one_time_keys = {
      '@carol:elsewhere.example': { X: CURVE },
      [alice.userId]: { [alice.deviceId]: CURVE },
    }
    const answer = ok(await claimBody({ one_time_keys }))
    assert.deepEqual(Object.keys(answer.one_time_keys), [alice.userId])
    assert.deepEqual(Object.keys(answer.failures), ['elsewhere.example'])
  })

  test('accepts timeout in the body and in the query', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: keys(['A', 'B']) })
    const one_time_keys = { [alice.userId]: { [alice.deviceId]: CURVE } }
    const inBody = ok(await claimBody({ one_time_keys, timeout: 10_000 }))
    assert.ok(named('A') in inBody.one_time_keys[alice.userId][alice.deviceId])
    const inQuery = ok(await claimBody({ one_time_keys }, '?timeout=10000'))
    assert.ok(named('B') in inQuery.one_time_keys[alice.userId][alice.deviceId])
  })

  test('accepts timeout in any form, because nothing waits for it without federation', async () => {
    for (const timeout of [10_000, 0, -1, 1.5, '10s', true, null, { ms: 1 }, [1]]) {
      const body = { one_time_keys: {}, timeout }
      assert.deepEqual(
        ok(await claimBody(body)),
        { one_time_keys: {}, failures: {} },
        JSON.stringify(timeout),
      )
    }
  })

  test('ignores invalid device IDs and algorithms, and claims the rest', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: keys(['A']) })
    const overlong = 'x'.repeat(256)
    const one_time_keys = {
      [alice.userId]: { [overlong]: CURVE, OTHER: overlong, '': CURVE, [alice.deviceId]: CURVE },
    }
    const answer = ok(await claimBody({ one_time_keys }))
    assert.deepEqual(answer, {
      one_time_keys: { [alice.userId]: { [alice.deviceId]: keys(['A']) } },
      failures: {},
    })
  })

  test('counts devices of other servers towards the limit of one claim', async () => {
    await using few = await startTestServer({ pools: { ...DEFAULT_POOL_POLICY, devicesPerClaim: 3 } })
    const { token } = await few.login('bob', 'B')
    const claimFrom = (count: number): ReturnType<typeof few.call> => {
      const elsewhere = Array.from({ length: count }, (_, i) => [`@x:server${i}.example`, { X: CURVE }])
      return few.call('POST', CLAIM, { token, body: { one_time_keys: Object.fromEntries(elsewhere) } })
    }
    assert.equal(Object.keys(ok(await claimFrom(3)).failures).length, 3)
    assert.match(refused(await claimFrom(4), 400, 'M_INVALID_PARAM'), /at most 3 /)
  })

  test("accepts a claim of the user's own keys, and an empty claim", async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: keys(['A']) })
    assert.equal((await claim(server, alice, alice))?.name, named('A'))
    for (const body of [
      {},
      { one_time_keys: null },
      { one_time_keys: {} },
      { one_time_keys: { [alice.userId]: {} } },
    ]) {
      assert.deepEqual(ok(await claimBody(body)), { one_time_keys: {}, failures: {} })
    }
  })

  test('a malformed user ID or a list of algorithms is a 400 that issues no key', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: keys(['A']) })
    const mine = { [alice.userId]: { [alice.deviceId]: CURVE } }
    const malformed = await claimBody({ one_time_keys: { ...mine, nonsense: { X: CURVE } } })
    assert.match(refused(malformed, 400, 'M_INVALID_PARAM'), /nonsense/)
    const list = await claimBody({ one_time_keys: { [alice.userId]: { [alice.deviceId]: [CURVE] } } })
    refused(list, 400, 'M_BAD_JSON')
    assert.equal((await pool(server, alice)).algorithms[CURVE].count, 1)
  })

  test('200 concurrent claims get 50 distinct keys and then the fallback key', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: keys(ids(50)), fallback_keys: fallback('F') })
    const claimed = await Promise.all(Array.from({ length: 200 }, () => claim(server, bob, alice)))
    const oneTime = claimed.map((key) => key?.name).filter((name) => name !== named('F'))
    assert.equal(oneTime.length, 50)
    assert.deepEqual(new Set(oneTime), new Set(ids(50).map(named)))
  })

  test('a logged-out device has no keys, and its issued ones stay used when the device ID is reused', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: keys(['A', 'B']), fallback_keys: fallback('F') })
    await claim(server, bob, alice)
    ok(await server.call('POST', '/_matrix/client/v3/logout', { token: alice.token }))
    assert.equal(await claim(server, bob, alice), undefined)
    const again = await loginAgain(alice, alice.deviceId)
    const answer = await upload(server, again, { one_time_keys: keys(['A', 'B', 'C']) })
    assert.deepEqual(answer['dev.latchkey.outcomes'], {
      [named('A')]: 'already_issued',
      [named('B')]: 'already_removed',
      [named('C')]: 'stored',
    })
    assert.deepEqual(await claimNames(server, bob, again, 2), [named('C'), undefined])
  })
})

describe('the depletion defence', () => {
  test('a claimer over its budget gets the fallback key; others still get one-time keys', async () => {
    const rates = { ...DEFAULT_RATES, claimPerTarget: { burst: 3, perSecond: 0.001 } }
    await using limited = await startTestServer({ rates })
    const [alice, eve, carol] = [
      await limited.login('alice', 'A'),
      await limited.login('eve', 'E'),
      await limited.login('carol', 'C'),
    ]
    await upload(limited, alice, { one_time_keys: keys(ids(5)), fallback_keys: fallback('F') })
    assert.deepEqual(await claimNames(limited, eve, alice, 5), [...ids(3), 'F', 'F'].map(named))
    assert.equal((await claim(limited, carol, alice))?.name, named('k0003'))
    assert.deepEqual((await sync(limited, alice)).device_unused_fallback_key_types, [])
  })

  test('without a fallback key a claimer over its budget gets one-time keys down to the reserve', async () => {
    const rates = { ...DEFAULT_RATES, claimPerTarget: { burst: 1, perSecond: 0.001 } }
    await using limited = await startTestServer({ rates })
    const [alice, eve] = [await limited.login('alice', 'A'), await limited.login('eve', 'E')]
    await upload(limited, alice, { one_time_keys: keys(ids(8)) })
    const claimed = await claimNames(limited, eve, alice, 5)
    assert.deepEqual(claimed, [...ids(3).map(named), undefined, undefined])
    const carol = await limited.login('carol', 'C')
    assert.deepEqual(await claimNames(limited, carol, alice, 2), [named('k0003'), undefined])
  })

  test('a claim of 110 000 devices that do not exist does not restore a used budget', async () => {
    const plenty = { burst: 1_000_000, perSecond: 1 }
    const rates = { ...DEFAULT_RATES, claimPerTarget: { burst: 3, perSecond: 0.001 }, workPerUser: plenty }
    await using limited = await startTestServer({ rates })
    const [alice, eve] = [await limited.login('alice', 'A'), await limited.login('eve', 'E')]
    await upload(limited, alice, { one_time_keys: keys(ids(5)), fallback_keys: fallback('F') })
    assert.deepEqual(await claimNames(limited, eve, alice, 4), [...ids(3), 'F'].map(named))
    for (let round = 0; round < 11; round++) {
      const madeUp = Array.from({ length: 10_000 }, (_, i) => [`NONE${round}X${i}`, CURVE])
      const body = { one_time_keys: { [alice.userId]: Object.fromEntries(madeUp) } }
      ok(await limited.call('POST', CLAIM, { token: eve.token, body }))
    }
    assert.equal((await claim(limited, eve, alice))?.name, named('F'))
  })

  test('a claim that gets no one-time key uses no budget', async () => {
    const rates = { ...DEFAULT_RATES, claimPerTarget: { burst: 2, perSecond: 0.001 } }
    await using limited = await startTestServer({ rates })
    const [alice, eve] = [await limited.login('alice', 'A'), await limited.login('eve', 'E')]
    assert.deepEqual(await claimNames(limited, eve, alice, 3), [undefined, undefined, undefined])
    await upload(limited, alice, { fallback_keys: fallback('F') })
    assert.deepEqual(await claimNames(limited, eve, alice, 3), ['F', 'F', 'F'].map(named))
    await upload(limited, alice, { one_time_keys: keys(ids(3)) })
    assert.deepEqual(await claimNames(limited, eve, alice, 3), [...ids(2), 'F'].map(named))
  })

  test('accounts of the server do not share a budget', async () => {
    const rates = {
      ...DEFAULT_RATES,
      registrationPerAddress: { burst: 100, perSecond: 1 },
      loginPerAddress: { burst: 100, perSecond: 1 },
      claimPerTarget: { burst: 1, perSecond: 0.0001 },
    }
    await using limited = await startTestServer({ rates })
    const alice = await limited.login('alice', 'A')
    await upload(limited, alice, { one_time_keys: keys(ids(20)), fallback_keys: fallback('F') })
    const claimed: (string | undefined)[] = []
    for (let n = 0; n < 12; n++) {
      claimed.push((await claim(limited, await limited.login(`eve${n}`), alice))?.name)
    }
    assert.deepEqual(claimed, ids(12).map(named))
  })

  test('without limits one claimer gets every one-time key before the fallback key', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: keys(ids(65)), fallback_keys: fallback('F') })
    assert.deepEqual(await claimNames(server, bob, alice, 66), [...ids(65), 'F'].map(named))
  })
})
