/** `latchkey import sqlite`: an embedded installation continues without a loss. Needs LATCHKEY_TEST_POSTGRES. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DEFAULT_POOL_POLICY } from '../../src/pool/policy.ts'
import { raiseFence } from '../../src/store/sqlite/fence-commands.ts'
import { embeddedQuery, imported, ImportHome, query, skip } from '../support/import-home.ts'
import { crossSigningBody, crossSigningPairs } from '@latchkey/testing/signing.ts'
import {
  claim,
  claimNames,
  CLIENT,
  deviceKeys,
  fallback,
  ids,
  keyObject,
  keys,
  named,
  ok,
  pool,
  reset,
  send,
  sync,
  upload,
} from '@latchkey/testing/test-client.ts'
import { type AnyJson, type TestDevice, type TestServer } from '@latchkey/testing/test-server.ts'

const pools = { ...DEFAULT_POOL_POLICY, keysPerPool: 8 }

/** The state of a device that itself and others can see. Page tokens differ between the stores. */
async function viewOf(server: TestServer, device: TestDevice): Promise<AnyJson> {
  const get = async (path: string): Promise<AnyJson> =>
    ok(await server.call('GET', `${CLIENT}${path}`, { token: device.token }))
  const { next_batch: _token, ...own } = await pool(server, device)
  return {
    own,
    devices: (await get('/devices')).devices.map((known: AnyJson) => ({ ...known, last_seen_ts: 0 })),
    published: ok(
      await server.call('POST', `${CLIENT}/keys/query`, {
        token: device.token,
        body: { device_keys: { [device.userId]: [] } },
      }),
    ),
    sync: await sync(server, device),
  }
}

test('accounts, sessions, keys with their order and history, messages and sync tokens continue', {
  skip,
}, async () => {
  await using home = new ImportHome()
  const before = await home.serve({ dataDir: home.directory(), pools })
  const alice = await before.login('alice', 'ALICE')
  const second = await before.login('alice', 'SECOND')
  const bob = await before.login('bob', 'BOB')
  const put = (server: TestServer, device: TestDevice, path: string, body: unknown): Promise<AnyJson> =>
    server.call('PUT', `${CLIENT}/user/${device.userId}/account_data/${path}`, {
      token: device.token,
      body,
    })
  const published = async (server: TestServer, by: TestDevice, ...users: string[]): Promise<AnyJson> =>
    ok(
      await server.call('POST', `${CLIENT}/keys/query`, {
        token: by.token,
        body: { device_keys: Object.fromEntries(users.map((user) => [user, []])) },
      }),
    )

  // Evicted: k0000, k0001. Issued: k0002 to k0004. Withdrawn: k0006. A former and a present fallback key.
  await upload(before, alice, { device_keys: deviceKeys(alice), one_time_keys: keys(ids(8)) })
  await upload(before, alice, { one_time_keys: keys(ids(2, 8)), fallback_keys: fallback('F1') })
  await upload(before, alice, {
    one_time_keys: { 'other:1': 'one', 'other:2': keyObject('two') },
    fallback_keys: fallback('F2'),
  })
  assert.deepEqual(await claimNames(before, bob, alice, 3), ids(3, 2).map(named))
  const resetBody = { key_ids: [named('k0006')], 'dev.latchkey.request_id': 'r1' }
  const resetAnswer = await reset(before, alice, resetBody)
  await upload(before, second, { one_time_keys: keys(['s1']), fallback_keys: fallback('S') })
  assert.deepEqual(await claimNames(before, bob, second, 3), ['s1', 'S', 'S'].map(named))
  // A removed device whose ID is used again: its keys stay issued and purged.
  const gone = await before.login('alice', 'GONE')
  await upload(before, gone, { one_time_keys: keys(['g1', 'g2']) })
  assert.equal((await claim(before, bob, gone))?.name, named('g1'))
  ok(await before.call('POST', `${CLIENT}/logout`, { token: gone.token, body: {} }))
  // An identity that was replaced.
  const changed = await before.login('alice', 'CHANGED')
  await upload(before, changed, { device_keys: deviceKeys(changed), one_time_keys: keys(['c1', 'c2']) })
  assert.equal((await claim(before, bob, changed))?.name, named('c1'))
  await upload(before, changed, { device_keys: deviceKeys(changed, 'second') })

  ok(
    await before.call('POST', `${CLIENT}/keys/device_signing/upload`, {
      token: alice.token,
      body: crossSigningBody(alice.userId, crossSigningPairs()),
    }),
  )
  ok(await put(before, alice, 'm.test', { n: 1 }))
  const filter = ok(
    await before.call('POST', `${CLIENT}/user/${alice.userId}/filter`, {
      token: alice.token,
      body: { room: { timeline: { limit: 1 } } },
    }),
  )
  await published(before, alice, bob.userId, '@carol:test.example')
  const since = (await sync(before, alice)).next_batch
  ok(await send(before, bob, { [alice.userId]: { ALICE: { n: 1 } } }, 't1'))
  ok(await send(before, bob, { [alice.userId]: { '*': { n: 2 } } }, 't2'))

  // Claims that are only in the issue log.
  assert.equal((await claim(before, bob, alice))?.name, named('k0005'))
  assert.equal((await claim(before, bob, second))?.name, named('S'))
  const copy = home.crashed(before)
  const unsettled = embeddedQuery(copy, `select 1 from issue_log`).length
  assert.ok(unsettled >= 2, `${unsettled} issues are not settled`)

  const database = await home.database()
  const { stdout } = await imported(database, copy)
  assert.match(
    stdout,
    /2 users, 5 devices, 4 sessions, 17 one-time keys \(\d+ of them available\), \d+ undelivered messages/,
  )
  const after = await home.serve({ dataDir: home.directory(), database, pools })

  for (const device of [alice, second, changed, bob]) {
    assert.deepEqual(await viewOf(after, device), await viewOf(before, device), device.deviceId)
  }
  const status = await after.context.store.sync.end()
  assert.equal(status.epoch, (await before.context.store.sync.end()).epoch)

  // The earlier token continues: each message is delivered once.
  const answer = await sync(after, alice, { since })
  assert.deepEqual(
    answer.to_device.events.map((event: AnyJson) => event.content.n),
    [1, 2],
  )
  assert.deepEqual((await sync(after, alice, { since: answer.next_batch })).to_device.events, [])
  assert.deepEqual((await sync(after, alice, { since })).to_device.events, [])
  ok(await send(after, bob, { [alice.userId]: { ALICE: { n: 1 } } }, 't1'))
  assert.deepEqual((await sync(after, alice, { since: answer.next_batch })).to_device.events, [])

  // Claims continue in the same order, and no key that left can be stored again.
  assert.deepEqual(await claimNames(after, bob, alice, 4), ['k0007', 'k0008', 'k0009', 'F2'].map(named))
  const again = await upload(after, alice, {
    one_time_keys: keys(ids(7)),
    fallback_keys: fallback('F1'),
  })
  assert.deepEqual(again['dev.latchkey.outcomes'], {
    ...Object.fromEntries(ids(2).map((id) => [named(id), 'already_removed'])),
    ...Object.fromEntries(ids(4, 2).map((id) => [named(id), 'already_issued'])),
    [named('k0006')]: 'stored',
  })
  assert.deepEqual(again['dev.latchkey.fallback_outcomes'], { [named('F1')]: 'already_replaced' })
  assert.deepEqual(await reset(after, alice, resetBody), resetAnswer)
  const back = await after.login('alice', 'GONE')
  const outcomes = (await upload(after, back, { one_time_keys: keys(['g1', 'g2']) }))['dev.latchkey.outcomes']
  assert.deepEqual(outcomes, { [named('g1')]: 'already_issued', [named('g2')]: 'already_removed' })

  // New rows get new handles, and users who awaited a name learn of its account.
  const carol = await after.login('carol', 'CAROL')
  await upload(after, carol, { device_keys: deviceKeys(carol), one_time_keys: keys(['n1']) })
  assert.equal((await claim(after, carol, carol))?.name, named('n1'))
  const lists = (await sync(after, alice, { since: answer.next_batch })).device_lists.changed
  assert.ok(lists.includes(carol.userId), lists)
  const data = await after.call('GET', `${CLIENT}/user/${alice.userId}/account_data/m.test`, {
    token: alice.token,
  })
  assert.deepEqual(ok(data), { n: 1 })
  const kept = await after.call('GET', `${CLIENT}/user/${alice.userId}/filter/${filter.filter_id}`, {
    token: alice.token,
  })
  assert.deepEqual(ok(kept), { room: { timeline: { limit: 1 } } })
})

test('a store that issues by key ID continues by key ID, or by upload order if configured', {
  skip,
}, async () => {
  await using home = new ImportHome()
  for (const claimOrder of ['key_id', 'upload'] as const) {
    const byKeyId = { ...pools, claimOrder: 'key_id' as const }
    const before = await home.serve({ dataDir: home.directory(), pools: byKeyId })
    const alice = await before.login('alice')
    await upload(before, alice, { one_time_keys: keys(['e', 'f']) })
    await upload(before, alice, { one_time_keys: keys(['b', 'c', 'a']) })
    await upload(before, alice, { one_time_keys: keys(['d']) })
    assert.deepEqual(await claimNames(before, alice, alice, 2), ['a', 'b'].map(named))
    const database = await home.database()
    await imported(database, home.crashed(before))
    const after = await home.serve({ dataDir: home.directory(), database, pools: { ...pools, claimOrder } })
    const order = claimOrder === 'key_id' ? ['c', 'd', 'e', 'f'] : ['e', 'f', 'c', 'd']
    assert.deepEqual(await claimNames(after, alice, alice, 4), order.map(named))
    assert.equal(await claim(after, alice, alice), undefined)
  }
})

test('neither the import nor the starts before and after it raise the fence', {
  skip,
}, async () => {
  await using home = new ImportHome()
  const dataDir = home.directory()
  const before = await home.serve({ dataDir })
  const alice = await before.login('alice')
  await upload(before, alice, { one_time_keys: keys(ids(3)) })
  const { epoch } = await before.context.store.sync.end()
  const { next_batch: since } = await sync(before, alice)
  await before.close()
  const database = await home.database()
  await imported(database, dataDir)
  for (const _ of [1, 2]) {
    const after = await home.serve({ dataDir, database })
    assert.equal((await claim(after, alice, alice)) === undefined, false)
    assert.equal((await after.context.store.sync.end()).epoch, epoch)
    await sync(after, alice, { since })
    await after.close()
  }
  assert.deepEqual(await query(database, `select fence::int from stream`), [{ fence: 0 }])
  assert.deepEqual(await query(database, `select 1 from former_epochs`), [])
  await imported(database, dataDir, '--undo')
  const undone = await home.serve({ dataDir })
  assert.equal((await undone.context.store.sync.end()).epoch, epoch)
})

test('a raised fence still applies after the import, also to devices that were not used since', {
  skip,
}, async () => {
  await using home = new ImportHome()
  const dataDir = home.directory()
  const before = await home.serve({ dataDir })
  const [alice, bob] = [await before.login('alice'), await before.login('bob')]
  await upload(before, alice, { one_time_keys: keys(ids(3)), fallback_keys: fallback('F') })
  await claim(before, bob, alice)
  const { next_batch: since } = await sync(before, alice)
  await before.close()
  const { number } = await raiseFence(dataDir, {
    reason: 'a test',
    dropFallbackKeys: false,
    now: Date.now(),
  })
  assert.equal(number, 1)
  const database = await home.database()
  await imported(database, home.crashed(before))
  const after = await home.serve({ dataDir: home.directory(), database })
  const embedded = await home.serve({ dataDir })
  for (const server of [after, embedded]) assert.equal((await claim(server, bob, alice))?.name, named('F'))
  // Versions only grow; each store counts the purge differently.
  const standing = async (server: TestServer): Promise<unknown> => ({
    ...(await pool(server, alice)),
    version: 0,
  })
  assert.deepEqual(await standing(after), await standing(embedded))
  const answer = await sync(after, alice, { since })
  assert.deepEqual(answer.device_one_time_keys_count, { signed_curve25519: 0 })
  assert.deepEqual(await query(database, `select fence::int from stream`), [{ fence: 1 }])
})

test('after any history both stores continue in the same way', { skip }, async () => {
  await using home = new ImportHome()
  const seed = Math.floor(Math.random() * 2 ** 31)
  const random = generator(seed)
  const before = await home.serve({ dataDir: home.directory(), pools })
  const bob = await before.login('bob', 'BOB')
  const devices: TestDevice[] = []
  for (const [user, device] of [
    ['alice', 'A'],
    ['alice', 'B'],
    ['carol', 'C'],
    ['dave', 'D'],
  ] as const) {
    devices.push(await before.login(user, device))
  }
  const used = new Set<string>()
  let made = 0
  const someIds = (): string[] =>
    Array.from({ length: 1 + random(6) }, () => {
      const id = `k${String(random(4) === 0 ? random(made + 1) : ++made).padStart(4, '0')}`
      used.add(id)
      return id
    })
  for (let step = 0; step < 120; step++) {
    const device = devices[random(devices.length)]
    assert.ok(device)
    const kind = random(10)
    if (kind < 3) {
      const fallbacks = random(3) === 0 ? { fallback_keys: fallback(`F${step}`) } : {}
      await upload(before, device, { one_time_keys: keys([...new Set(someIds())]), ...fallbacks })
    } else if (kind < 8) await claim(before, bob, device)
    else if (kind === 8) await reset(before, device, { key_ids: [...used].slice(-3).map(named) })
    else await reset(before, device, { all: true })
  }
  const database = await home.database()
  await imported(database, home.crashed(before))
  const after = await home.serve({ dataDir: home.directory(), database, pools })
  for (const device of devices) {
    assert.deepEqual(
      await viewOf(after, device),
      await viewOf(before, device),
      `${device.deviceId}, seed ${seed}`,
    )
  }
  for (const device of devices) {
    const message = `${device.deviceId}, seed ${seed}`
    const rest = (server: TestServer): Promise<unknown> => claimNames(server, bob, device, 10)
    assert.deepEqual(await rest(after), await rest(before), message)
    const offered = keys([...used])
    const outcomes = async (server: TestServer): Promise<unknown> =>
      (await upload(server, device, { one_time_keys: offered }))['dev.latchkey.outcomes']
    assert.deepEqual(await outcomes(after), await outcomes(before), message)
  }
})

/** Integers below a limit, the same for the same seed. */
function generator(seed: number): (limit: number) => number {
  let state = seed
  return (limit) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff
    return Math.floor((state / 0x80000000) * limit)
  }
}
