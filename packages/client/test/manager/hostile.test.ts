/** Servers with impossible answers: requests stay bounded, uploads continue, nothing is trusted too soon. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { AnyJson } from '@latchkey/testing/matrix-session.ts'
import { memoryStore } from '../../src/index.ts'
import { EMPTY_DIGEST, foreignPool, keyPool, ok, Scripted } from '../support/manager/scripted.ts'

const HOUR_MS = 3_600_000
/** A first sync asks for versions and identity, and uploads; everything else is caused by the server. */
const MAX_REQUESTS = 60
const COUNT = { device_one_time_keys_count: { signed_curve25519: 50 } }
const drifting = (epoch = 'e', version = 1): AnyJson => ({
  ...COUNT,
  'dev.latchkey.key_pool': keyPool(epoch, version, 'foreign'),
})
const changed = (epoch: string, version: number): { status: number; body: AnyJson } => ({
  status: 409,
  body: { errcode: 'DEV.LATCHKEY.M_POOL_CHANGED', 'dev.latchkey.key_pool': keyPool(epoch, version) },
})

test('a fallback key that is always missing leads to a limited number of uploads', async () => {
  const device = await Scripted.open({
    keys_upload: (n) =>
      ok({
        one_time_key_counts: { signed_curve25519: 50 },
        'dev.latchkey.key_pool': { epoch: 'e', version: n, generation: 1, digest: {}, fallback: {} },
      }),
  })
  const count = await device.sync({ device_one_time_keys_count: { signed_curve25519: 0 } })
  assert.ok(count <= MAX_REQUESTS, `${count} requests`)
})

test('resets answered with 409 and another epoch each time end', async () => {
  let epoch = 0
  const device = await Scripted.open({
    keys_pool: () => ok(foreignPool(`e${++epoch}`, 1)),
    keys_reset: () => changed(`e${++epoch}`, 1),
  })
  const count = await device.sync(drifting())
  assert.ok(count <= MAX_REQUESTS, `${count} requests`)
  assert.ok(device.count('keys_reset') > 0)
  assert.ok((await device.sync(drifting('later'))) <= 10, 'and the next sync causes no new burst')
})

test('resets answered with 409 and a digest that seems right end, and it is reported', async () => {
  let version = 1
  let now = Date.now()
  const device = await Scripted.open(
    {
      keys_pool: () => ok(foreignPool('e', ++version)),
      keys_reset: () => changed('e', ++version),
    },
    { now: () => now },
  )
  for (let syncs = 0; syncs < 20; syncs++) {
    const count = await device.sync(drifting('e', ++version))
    assert.ok(count <= MAX_REQUESTS, `${count} requests`)
    now += 1_000
  }
  assert.ok(device.events.includes('not_healed'))
  assert.ok(device.sent.length <= 2 * MAX_REQUESTS, `${device.sent.length} requests in 20 s`)
})

test('a new epoch in every answer leads to a limited number of requests', async () => {
  let epoch = 0
  const device = await Scripted.open({
    keys_upload: () =>
      ok({
        one_time_key_counts: { signed_curve25519: 50 },
        'dev.latchkey.key_pool': keyPool(`e${++epoch}`, 1),
      }),
    keys_pool: () => ok({ epoch: `e${++epoch}`, version: 1, generation: 1, algorithms: {} }),
  })
  const count = await device.sync({ 'dev.latchkey.key_pool': keyPool('e0', 1) })
  assert.ok(count <= MAX_REQUESTS, `${count} requests`)
})

for (const status of [403, 404, 503]) {
  test(`a reset that is answered with ${status} for days is given up and reported, and uploads continue`, async () => {
    let now = Date.now()
    const device = await Scripted.open(
      { keys_pool: () => ok(foreignPool('e', 1)), keys_reset: () => ({ status, body: {} }) },
      { now: () => now },
    )
    for (let syncs = 0; syncs < 200; syncs++) {
      await device.sync({
        'dev.latchkey.key_pool': keyPool('e', 1, 'foreign'),
        device_one_time_keys_count: { signed_curve25519: 1 },
      })
      now += HOUR_MS / 6
    }
    assert.ok(device.count('keys_upload') > 1, 'uploads continue')
    assert.ok(device.count('keys_reset') <= 160, `${device.count('keys_reset')} resets`)
    assert.ok(device.events.includes('not_healed'))
  })
}

test('a pool that is not returned is requested now and then, and reported once', async () => {
  let now = Date.now()
  const device = await Scripted.open({ keys_pool: () => ({ status: 403, body: {} }) }, { now: () => now })
  for (let syncs = 0; syncs < 100; syncs++) {
    await device.sync(drifting())
    now += 1_000
  }
  assert.ok(device.count('keys_pool') <= 10, `${device.count('keys_pool')} readings`)
  for (const type of ['server', 'not_healed']) {
    assert.equal(device.events.filter((event) => event === type).length, 1, type)
  }
})

test('a malformed identity is ignored, and another one counts only when it is reported twice', async () => {
  const device = (keys: AnyJson): AnyJson => ({ device_keys: { '@bob:example.org': { BOB: { keys } } } })
  for (const body of [
    {},
    { device_keys: 5 },
    { device_keys: { '@bob:example.org': [] } },
    device(null),
    device({ 'curve25519:BOB': 5 }),
    device({ 'curve25519:BOB': 'short', 'ed25519:BOB': 'short' }),
  ]) {
    const bob = await Scripted.open({ keys_query: () => ok(body) })
    await bob.sync({})
    const { unusableReason, retryInMs } = await bob.manager.status()
    assert.equal(unusableReason, undefined, JSON.stringify(body))
    assert.ok(retryInMs > 0)
    assert.equal(bob.count('keys_upload'), 0)
  }
  const other = device({ 'curve25519:BOB': 'A'.repeat(43), 'ed25519:BOB': 'B'.repeat(43) })
  const once = await Scripted.open({ keys_query: (n) => ok(n <= 2 ? other : { device_keys: {} }) })
  await once.sync({})
  assert.equal((await once.manager.status()).unusableReason, undefined)
  assert.equal(once.count('keys_upload'), 1)
  const twice = await Scripted.open({ keys_query: () => ok(other) })
  await twice.sync({})
  assert.match((await twice.manager.status()).unusableReason ?? '', /another identity/)
  assert.equal(twice.count('keys_upload'), 0)
})

test('a name that the server keeps a key under instead changes nothing', async () => {
  const store = memoryStore()
  const device = await Scripted.open(
    {
      keys_upload: (n) => {
        const names = Object.keys(JSON.parse(device.sent.at(-1)?.body ?? '{}').one_time_keys ?? {})
        const storedAs = Object.fromEntries(names.map((name, i) => [name, `elsewhere:${n}${i}`]))
        return ok({
          one_time_key_counts: { signed_curve25519: 50 },
          'dev.latchkey.stored_as': storedAs,
        })
      },
    },
    { store },
  )
  await device.sync({ device_one_time_keys_count: { signed_curve25519: 0 } })
  const { records } = await store.read()
  const names = [...records.keys()].filter((name) => name.startsWith('key/'))
  assert.equal(names.length, 50)
  assert.ok(names.every((name) => name.startsWith('key/signed_curve25519:')))
})

test('endless lists do not fill the store, and are processed fast', async () => {
  const store = memoryStore()
  let n = 0
  const many = (count: number): AnyJson[] =>
    Array.from({ length: count }, () => ({ key_id: `x${++n}`, key_hash: `hash ${n}`, issued_ts: 1 }))
  const device = await Scripted.open(
    {
      keys_pool: () =>
        ok({
          epoch: 'e',
          version: ++n,
          generation: 1,
          algorithms: {
            signed_curve25519: { count: 1, digest: `d${n}`, available: many(3_000), issued: many(20_000) },
          },
        }),
      keys_reset: () => ok({}),
    },
    { store },
  )
  for (let syncs = 0; syncs < 3; syncs++) {
    const counts = Object.fromEntries(Array.from({ length: 20_000 }, () => [`invented${++n}`, 1]))
    await device.sync({
      device_one_time_keys_count: { ...counts, signed_curve25519: 1 },
      'dev.latchkey.key_pool': {
        ...keyPool('e', ++n, `d${n}`),
        digest: { ...counts, [`other${n}`]: EMPTY_DIGEST },
      },
    })
  }
  const { records } = await store.read()
  assert.ok(records.size <= 5_200, `${records.size} records`)
  const bytes = [...records].reduce((sum, [key, text]) => sum + key.length + text.length, 0)
  assert.ok(bytes < 2_000_000, `${bytes} bytes`)
  assert.ok((records.get('server/view')?.length ?? 0) < 5_000)
})

test('an undefined member of a budget means its default', async () => {
  let now = Date.now()
  let version = 0
  const device = await Scripted.open(
    { keys_pool: () => ok(foreignPool('e', ++version)), keys_reset: () => ok({}) },
    { now: () => now, budget: { healsPerDay: undefined, pauseMs: undefined } as object },
  )
  for (let syncs = 0; syncs < 30; syncs++) {
    await device.sync({ ...COUNT, 'dev.latchkey.key_pool': keyPool('e', ++version, `f${version}`) })
    now += HOUR_MS / 4
  }
  assert.ok((await device.manager.history()).length <= 10)
})
