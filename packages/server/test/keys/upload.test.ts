/**
 * `/keys/upload` over HTTP: the outcome table, conflicts, fallback keys, identity, limits. Tests name the scenarios of
 * peers: Complement csapi/upload_keys_test.go, SyTest 41end-to-end-keys, Synapse tests/handlers/test_e2e_keys.py.
 */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import { DEFAULT_POOL_POLICY } from '../../src/pool/policy.ts'
import {
  claim,
  claimNames,
  CURVE,
  deviceKeys,
  fallback,
  ids,
  keyObject,
  keys,
  material,
  named,
  ok,
  pool,
  refused,
  sync,
  tryUpload,
  upload,
} from '@latchkey/testing/test-client.ts'
import { sharedServer } from '../support/shared-server.ts'
import { startTestServer, type TestDevice } from '@latchkey/testing/test-server.ts'

const { server, bob, newDevice } = await sharedServer()

describe('POST /keys/upload', () => {
  test('returns counts per algorithm that equal the upload (Complement TestUploadKey, SyTest 01)', async () => {
    const alice = await newDevice()
    const body = await upload(server, alice, {
      device_keys: deviceKeys(alice),
      one_time_keys: { ...keys(['A', 'B']), 'my_algorithm:id': 'my+base64+key' },
    })
    assert.deepEqual(body.one_time_key_counts, { [CURVE]: 2, my_algorithm: 1 })
    assert.deepEqual(body['dev.latchkey.outcomes'], {
      [named('A')]: 'stored',
      [named('B')]: 'stored',
      'my_algorithm:id': 'stored',
    })
  })

  test('an empty body returns the counts, including signed_curve25519', async () => {
    const alice = await newDevice()
    for (const body of [{}, { one_time_keys: {} }, { one_time_keys: null, fallback_keys: null }]) {
      const answer = await upload(server, alice, body)
      assert.deepEqual(answer.one_time_key_counts, { [CURVE]: 0 })
    }
  })

  test('a device without keys has the digest of the empty set and a count of 0', async () => {
    const { digest } = (await sync(server, await newDevice()))['dev.latchkey.key_pool']
    assert.deepEqual(digest, { [CURVE]: 'A'.repeat(43) })
  })

  test('device keys over 8 KiB are refused', async () => {
    const alice = await newDevice()
    const sized = (length: number): object => ({ ...deviceKeys(alice), extra: 'x'.repeat(length) })
    assert.equal((await tryUpload(server, alice, { device_keys: sized(7_000) })).status, 200)
    refused(await tryUpload(server, alice, { device_keys: sized(8_000) }), 413, 'M_TOO_LARGE')
  })

  test('key objects of Curve25519 take 4 KiB, those of other algorithms 16 KiB', async () => {
    const alice = await newDevice()
    const sized = (algorithm: string, length: number): ReturnType<typeof tryUpload> => {
      const object = keyObject(algorithm, { extra: 'x'.repeat(length) })
      return tryUpload(server, alice, { one_time_keys: { [`${algorithm}:A`]: object } })
    }
    for (const [algorithm, kib] of [
      [CURVE, 4],
      ['curve25519', 4],
      ['x.post_quantum', 16],
    ] as const) {
      assert.equal((await sized(algorithm, (kib - 1) * 1024)).status, 200)
      const error = refused(await sized(algorithm, kib * 1024), 413, 'M_TOO_LARGE')
      assert.match(error, new RegExp(`larger than ${kib * 1024} bytes`))
    }
  })

  for (const [signatures, found] of [
    ['text', 'a string as its "signatures"'],
    [['text'], 'an array as its "signatures"'],
    [null, 'null as its "signatures"'],
    [{ '@a:test.example': 'text' }, 'a string as its signatures by "@a:test.example"'],
    [{ '@a:test.example': null }, 'null as its signatures by'],
    [{ '@a:test.example': ['text'] }, 'an array as its signatures by'],
    [{ '@a:test.example': { 'ed25519:A': 1 } }, 'a number as its signature "ed25519:A" by "@a:test.example"'],
    [{ '@a:test.example': { 'ed25519:A': { x: 'y' } } }, 'an object as its signature'],
  ] as const) {
    test(`signatures ${JSON.stringify(signatures)} of a key object are refused`, async () => {
      const alice = await newDevice()
      for (const member of ['one_time_keys', 'fallback_keys']) {
        const body = { [member]: { [named('A')]: keyObject('m', { signatures }) } }
        const error = refused(await tryUpload(server, alice, body), 400, 'M_BAD_JSON')
        assert.ok(error.includes(found), error)
      }
      assert.deepEqual((await upload(server, alice, {})).one_time_key_counts, { [CURVE]: 0 })
    })
  }

  test('the key_pool member equals the one in keys/pool and sync', async () => {
    const alice = await newDevice()
    const answer = await upload(server, alice, { one_time_keys: keys(['A']), fallback_keys: fallback('F') })
    const keyPool = answer['dev.latchkey.key_pool']
    const { epoch, version, generation, algorithms } = await pool(server, alice)
    assert.deepEqual(
      { epoch, version, generation },
      { epoch: keyPool.epoch, version: keyPool.version, generation: keyPool.generation },
    )
    assert.equal(algorithms[CURVE].digest, keyPool.digest[CURVE])
    assert.equal(algorithms[CURVE].fallback.key_hash, keyPool.fallback[CURVE])
    assert.deepEqual((await sync(server, alice))['dev.latchkey.key_pool'], keyPool)
  })

  test('the same keys sent three times are stored once (Complement TestUploadKeyIdempotency)', async () => {
    const alice = await newDevice()
    const body = { one_time_keys: keys(['A', 'B', 'C', 'D']) }
    const first = await upload(server, alice, body)
    for (const again of [await upload(server, alice, body), await upload(server, alice, body)]) {
      assert.deepEqual(again.one_time_key_counts, { [CURVE]: 4 })
      assert.equal(again['dev.latchkey.outcomes'][named('A')], 'already_stored')
      assert.deepEqual(again['dev.latchkey.key_pool'], first['dev.latchkey.key_pool'])
    }
  })

  test('overlapping uploads add only the new keys (Complement TestUploadKeyIdempotencyOverlap)', async () => {
    const alice = await newDevice()
    const first = await upload(server, alice, { one_time_keys: keys(['A', 'B', 'C']) })
    assert.equal(first.one_time_key_counts[CURVE], 3)
    const second = await upload(server, alice, { one_time_keys: keys(['B', 'C', 'D']) })
    assert.equal(second.one_time_key_counts[CURVE], 4)
  })

  test('a re-signed or padded key is the same key (Synapse reupload_one_time_keys)', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: { [named('A')]: keyObject('m') } })
    const variants = [
      keyObject('m', { signatures: { '@x:test.example': { 'ed25519:X': 'other' } } }),
      keyObject('m', { key: `${material('m')}=` }),
      { signatures: {}, key: material('m') },
    ]
    for (const variant of variants) {
      const answer = await upload(server, alice, { one_time_keys: { [named('A')]: variant } })
      assert.equal(answer['dev.latchkey.outcomes'][named('A')], 'already_stored')
      assert.equal(answer.one_time_key_counts[CURVE], 1)
    }
  })

  test('material under another ID is stored once, and the answer has the ID under which it is stored', async () => {
    const alice = await newDevice()
    const before = await upload(server, alice, { one_time_keys: { [named('OLD')]: keyObject('same') } })
    assert.deepEqual(before['dev.latchkey.stored_as'], {})
    const answer = await upload(server, alice, {
      one_time_keys: {
        [named('NEW')]: keyObject('same'),
        [named('X')]: keyObject('twin'),
        [named('Y')]: keyObject('twin'),
      },
    })
    assert.deepEqual(answer['dev.latchkey.outcomes'], {
      [named('NEW')]: 'already_stored',
      [named('X')]: 'stored',
      [named('Y')]: 'already_stored',
    })
    assert.deepEqual(answer['dev.latchkey.stored_as'], {
      [named('NEW')]: named('OLD'),
      [named('Y')]: named('X'),
    })
    assert.equal(answer.one_time_key_counts[CURVE], 2)
  })

  test('an issued key is not accepted again (matrix-spec#1124); its ID with new material is id_reused', async () => {
    const alice = await newDevice()
    const body = { one_time_keys: keys(['A', 'B']) }
    await upload(server, alice, body)
    assert.equal((await claim(server, bob, alice))?.name, named('A'))
    const again = await upload(server, alice, body)
    assert.deepEqual(again['dev.latchkey.outcomes'], {
      [named('A')]: 'already_issued',
      [named('B')]: 'already_stored',
    })
    assert.equal(again.one_time_key_counts[CURVE], 1)
    const reused = await upload(server, alice, { one_time_keys: { [named('A')]: keyObject('rolled back') } })
    assert.equal(reused['dev.latchkey.outcomes'][named('A')], 'id_reused')
    assert.equal(reused.one_time_key_counts[CURVE], 2)
  })

  test('an available ID with other material is refused with the text that SDKs parse, and with data', async () => {
    const alice = await newDevice()
    const old = keyObject('old')
    await upload(server, alice, { one_time_keys: { [named('A')]: old, ...keys(['B']) } })
    const before = await pool(server, alice)
    const other = keyObject('new')
    const reply = await tryUpload(server, alice, {
      device_keys: deviceKeys(alice),
      one_time_keys: { [named('A')]: other, [named('B')]: keyObject('b2'), ...keys(['C']) },
      fallback_keys: fallback('F'),
    })
    const text = refused(reply, 400, 'io.github.johennes.msc4420.M_DUPLICATE_ONE_TIME_KEY')
    const match =
      /^One time key signed_curve25519:A already exists\. Old key: (\{[^;]*\}); new key: (\{[^;]*\})$/.exec(
        text,
      )
    assert.ok(match, text)
    assert.deepEqual(JSON.parse(match[1] ?? ''), old)
    assert.deepEqual(JSON.parse(match[2] ?? ''), other)
    assert.deepEqual(reply.body['dev.latchkey.conflicts'], {
      [named('A')]: { stored_key: material('old'), uploaded_key: material('new') },
      [named('B')]: { stored_key: material('k/B'), uploaded_key: material('b2') },
    })
    assert.deepEqual(await pool(server, alice), before, 'nothing of the request was stored')
    const query = await server.call('POST', '/_matrix/client/v3/keys/query', {
      token: bob.token,
      body: { device_keys: { [alice.userId]: [] } },
    })
    assert.deepEqual(ok(query).device_keys, { [alice.userId]: {} })
  })

  test('a key of any form that changed is a conflict (Synapse change_one_time_keys)', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: { 'alg1:k1': 'key1', 'alg2:k2': { key: 'key2' } } })
    for (const changed of [
      { 'alg1:k1': 'key2' },
      { 'alg1:k1': { key: 'key2' } },
      { 'alg2:k2': { key: 'key3' } },
    ]) {
      const reply = await tryUpload(server, alice, { one_time_keys: changed })
      refused(reply, 400, 'io.github.johennes.msc4420.M_DUPLICATE_ONE_TIME_KEY')
    }
    const answer = await upload(server, alice, { one_time_keys: { 'alg2:k1': { key: 'key4' } } })
    assert.deepEqual(answer.one_time_key_counts, { [CURVE]: 0, alg1: 1, alg2: 2 })
  })

  test('over the cap the oldest keys are evicted, named in the answer, and never accepted again', async () => {
    const pools = { ...DEFAULT_POOL_POLICY, keysPerPool: 3 }
    await using small = await startTestServer({ pools })
    const alice = await small.login('alice', 'A')
    const first = await upload(small, alice, { one_time_keys: keys(['Z', 'Y']) })
    const answer = await upload(small, alice, { one_time_keys: keys(['A', 'B', 'C']) })
    assert.deepEqual(answer['dev.latchkey.evicted'], [named('Y'), named('Z')])
    assert.equal(answer.one_time_key_counts[CURVE], 3)
    assert.ok(
      answer['dev.latchkey.key_pool'].generation > first['dev.latchkey.key_pool'].generation,
      'an eviction starts a new generation',
    )
    const again = await upload(small, alice, { one_time_keys: keys(['Y']) })
    assert.equal(again['dev.latchkey.outcomes'][named('Y')], 'already_removed')
    const other = await small.login('bob', 'B')
    assert.deepEqual(await claimNames(small, other, alice, 4), [
      named('A'),
      named('B'),
      named('C'),
      undefined,
    ])
  })
})

describe('fallback keys', () => {
  const types = async (device: TestDevice): Promise<unknown> =>
    (await sync(server, device)).device_unused_fallback_key_types

  test('fill in for an empty pool, are reported as used, and stay used when sent again (Synapse fallback_key)', async () => {
    const alice = await newDevice()
    assert.deepEqual(await types(alice), [])
    const body = { fallback_keys: fallback('F') }
    const stored = await upload(server, alice, body)
    assert.deepEqual(stored['dev.latchkey.fallback_outcomes'], { [named('F')]: 'stored' })
    assert.deepEqual(await types(alice), [CURVE])
    const claimed = await claim(server, bob, alice)
    assert.deepEqual(claimed, { name: named('F'), key: fallback('F')[named('F')] })
    assert.deepEqual(await types(alice), [])
    assert.deepEqual(await claim(server, bob, alice), claimed, 'the next claimer gets the same key')
    const again = await upload(server, alice, body)
    assert.deepEqual(again['dev.latchkey.fallback_outcomes'], { [named('F')]: 'already_stored' })
    assert.deepEqual(await types(alice), [], 'still used')
    const { fallback: standing } = (await pool(server, alice)).algorithms[CURVE]
    assert.equal(standing.used, true)
    assert.equal(standing.issue_count, 2)
  })

  test('stay used when re-uploaded with their members in another order', async () => {
    const alice = await newDevice()
    await upload(server, alice, { fallback_keys: fallback('F') })
    await claim(server, bob, alice)
    const { key, signatures } = keyObject('fallback/F') as { key: string; signatures: object }
    await upload(server, alice, { fallback_keys: { [named('F')]: { signatures, fallback: true, key } } })
    assert.deepEqual(await types(alice), [])
  })

  test('are replaced by a new one, and a late upload of the replaced one is ignored', async () => {
    const alice = await newDevice()
    await upload(server, alice, { fallback_keys: fallback('F1') })
    await claim(server, bob, alice)
    await upload(server, alice, { fallback_keys: fallback('F2') })
    assert.deepEqual(await types(alice), [CURVE])
    const late = await upload(server, alice, { fallback_keys: fallback('F1') })
    assert.deepEqual(late['dev.latchkey.fallback_outcomes'], { [named('F1')]: 'already_replaced' })
    assert.equal((await claim(server, bob, alice))?.name, named('F2'))
  })

  test('are unused while one-time keys are left (Synapse fallback_key_always_returned)', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: keys(['A']), fallback_keys: fallback('F') })
    assert.equal((await claim(server, bob, alice))?.name, named('A'))
    assert.deepEqual(await types(alice), [CURVE])
    assert.equal((await claim(server, bob, alice))?.name, named('F'))
  })

  test('may have the name of a one-time key, and need no fallback member', async () => {
    const alice = await newDevice()
    await upload(server, alice, {
      one_time_keys: keys(['A']),
      fallback_keys: { [named('A')]: keyObject('other') },
    })
    assert.equal((await claim(server, bob, alice))?.key.key, material('k/A'))
    assert.equal((await claim(server, bob, alice))?.key.key, material('other'))
  })

  test('two for one algorithm in one request are refused together with its one-time keys', async () => {
    const alice = await newDevice()
    const reply = await tryUpload(server, alice, {
      one_time_keys: keys(['A']),
      fallback_keys: { ...fallback('F1'), ...fallback('F2') },
    })
    assert.match(refused(reply, 400, 'M_INVALID_PARAM'), /F1.*F2/)
    assert.deepEqual((await upload(server, alice, {})).one_time_key_counts, { [CURVE]: 0 })
  })
})

describe('device keys and identity', () => {
  const query = async (device: TestDevice): Promise<Record<string, unknown>> => {
    const body = { device_keys: { [device.userId]: [device.deviceId] } }
    const reply = await server.call('POST', '/_matrix/client/v3/keys/query', { token: bob.token, body })
    return ok(reply).device_keys[device.userId]
  }

  test('are returned as uploaded, plus unsigned (Complement, SyTest 01)', async () => {
    const alice = await newDevice()
    const uploaded = deviceKeys(alice)
    await upload(server, alice, { device_keys: uploaded })
    const found = (await query(alice))[alice.deviceId] as Record<string, unknown>
    assert.deepEqual(found, { ...uploaded, unsigned: {} })
  })

  test('are refused, and nothing is stored, if members are missing or name another user or device', async () => {
    const alice = await newDevice()
    const good = deviceKeys(alice)
    const { user_id, device_id } = good
    const one_time_keys = keys(['A'])
    const several = await tryUpload(server, alice, { device_keys: { user_id, device_id }, one_time_keys })
    refused(several, 400, 'M_BAD_JSON')
    const { algorithms: _missing, ...lacking } = good
    const one = await tryUpload(server, alice, { device_keys: lacking, one_time_keys })
    assert.match(refused(one, 400, 'M_MISSING_PARAM'), /device_keys.*algorithms/)
    for (const wrong of [{ user_id: bob.userId }, { device_id: 'OTHER' }]) {
      const reply = await tryUpload(server, alice, { device_keys: { ...good, ...wrong }, one_time_keys })
      assert.match(refused(reply, 400, 'M_BAD_JSON'), /device_keys\.(user|device)_id/)
    }
    const reply = await tryUpload(server, alice, { device_keys: null, one_time_keys })
    assert.equal(reply.status, 400)
    assert.deepEqual(await query(alice), {})
    assert.deepEqual((await upload(server, alice, {})).one_time_key_counts, { [CURVE]: 0 })
  })

  test('a changed identity purges the pools, and the former identity is refused from then on', async () => {
    const alice = await newDevice()
    const first = { device_keys: deviceKeys(alice, 'one'), one_time_keys: keys(['A']) }
    const before = await upload(server, alice, { ...first, fallback_keys: fallback('F') })
    const after = await upload(server, alice, { device_keys: deviceKeys(alice, 'two') })
    assert.deepEqual(after.one_time_key_counts, { [CURVE]: 0 })
    assert.ok(
      after['dev.latchkey.key_pool'].generation > before['dev.latchkey.key_pool'].generation,
      'a purge starts a new generation',
    )
    assert.equal(await claim(server, bob, alice), undefined)
    refused(await tryUpload(server, alice, first), 400, 'M_INVALID_PARAM')
    refused(await tryUpload(server, alice, { one_time_keys: keys(['B']) }), 400, 'M_INVALID_SIGNATURE')
    assert.equal(await claim(server, bob, alice), undefined)
  })
})

describe('limits', () => {
  test('an upload of 2 000 keys is refused with both numbers, and nothing is stored', async () => {
    const alice = await newDevice()
    const reply = await tryUpload(server, alice, { one_time_keys: keys(ids(2000)) })
    assert.match(refused(reply, 400, 'M_INVALID_PARAM'), /2000 one-time keys.*500/)
    assert.deepEqual((await upload(server, alice, {})).one_time_key_counts, { [CURVE]: 0 })
  })

  test('a 17th algorithm is refused together with the rest of the request', async () => {
    const alice = await newDevice()
    const many = Array.from({ length: 16 }, (_, i) => [`alg${i}:1`, `key${i}`])
    await upload(server, alice, { one_time_keys: Object.fromEntries(many) })
    const reply = await tryUpload(server, alice, {
      one_time_keys: { 'alg0:2': 'new', 'alg16:1': 'one more' },
    })
    assert.match(refused(reply, 400, 'M_INVALID_PARAM'), /16 algorithms/)
    assert.equal((await upload(server, alice, {})).one_time_key_counts['alg0'], 1)
  })

  test('a flood of keys evicts the oldest, then meets the daily budget with at most 2 s to wait', async () => {
    const alice = await newDevice()
    let stored = 0
    for (; stored < 5000; stored += 500) {
      const answer = await upload(server, alice, { one_time_keys: keys(ids(500, stored)) })
      assert.equal(answer.one_time_key_counts[CURVE], 500)
      const evicted = stored === 0 ? [] : ids(500, stored - 500).map(named)
      assert.deepEqual(answer['dev.latchkey.evicted'], evicted)
    }
    const reply = await tryUpload(server, alice, { one_time_keys: keys(ids(1, stored)) })
    refused(reply, 429, 'M_LIMIT_EXCEEDED')
    assert.ok(reply.body.retry_after_ms > 0 && reply.body.retry_after_ms <= 2000)
    assert.equal((await claim(server, bob, alice))?.name, named('k4500'))
  })
})
