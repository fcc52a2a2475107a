/**
 * `/sync` over HTTP: the state of a device's own keys, wakes (key-pool.md "Signals"), tokens, and the end of a session.
 * Peers' scenarios: Synapse tests/rest/client/test_sync.py DeviceOneTimeKeysSync and DeviceUnusedFallbackKeySync.
 */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import {
  claim,
  claimNames,
  CLIENT,
  CURVE,
  deviceKeys,
  fallback,
  ids,
  keys,
  longPoll,
  ok,
  refused,
  reset,
  send,
  SYNC,
  sync,
  trySync,
  until,
  upload,
} from '@latchkey/testing/test-client.ts'
import { sharedServer } from '../support/shared-server.ts'
import { type AnyJson, startTestServer, type TestDevice } from '@latchkey/testing/test-server.ts'

const { server, bob, newDevice, loginAgain } = await sharedServer()

/** The token of an answer after which nothing is new. */
async function caughtUp(device: TestDevice): Promise<string> {
  return (await sync(server, device)).next_batch
}

/** A long-poll whose client disconnects: `abandon` resolves once the server has noticed. */
async function abandonedPoll(device: TestDevice, since: string): Promise<{ abandon(): Promise<void> }> {
  const { waiters } = server.context
  const before = waiters.count
  const client = new AbortController()
  const url = `${server.url}${SYNC}?${new URLSearchParams({ since, timeout: '60000' })}`
  const headers = { authorization: `Bearer ${device.token}` }
  const ended = assert.rejects(fetch(url, { headers, signal: client.signal }))
  await until(() => waiters.count > before)
  return {
    async abandon() {
      client.abort()
      await ended
      await until(() => waiters.count === before)
    },
  }
}

const count = (body: AnyJson): number => body.device_one_time_keys_count[CURVE]

describe('the state of a device’s own keys', () => {
  test('is in every answer, including signed_curve25519 and the unused types, with any filter', async () => {
    const alice = await newDevice()
    const first = await sync(server, alice)
    const since = first.next_batch
    const filter = JSON.stringify({ event_fields: [], room: { rooms: [] } })
    const answers = [
      first,
      await sync(server, alice, { since }),
      await sync(server, alice, { since, timeout: '1' }),
      await sync(server, alice, { since, filter }),
    ]
    for (const answer of answers) {
      assert.deepEqual(answer.device_one_time_keys_count, { [CURVE]: 0 })
      assert.deepEqual(answer.device_unused_fallback_key_types, [])
      assert.equal(typeof answer['dev.latchkey.key_pool'].epoch, 'string')
    }
  })

  test('lists every algorithm that ever had keys, with a count of 0 if empty', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: { 'other:1': 'key' }, fallback_keys: fallback('F') })
    await claim(server, bob, alice, 'other')
    const answer = await sync(server, alice)
    assert.deepEqual(answer.device_one_time_keys_count, { [CURVE]: 0, other: 0 })
    assert.deepEqual(answer.device_unused_fallback_key_types, [CURVE])
  })

  test('is the state at the answer, not at the arrival of the long-poll (synapse#17491)', async () => {
    const alice = await newDevice()
    const poll = await longPoll(server, alice, await caughtUp(alice))
    await upload(server, alice, { one_time_keys: keys(ids(3)), fallback_keys: fallback('F') })
    await send(server, bob, { [alice.userId]: { [alice.deviceId]: { end: 'of the wait' } } }, 'fresh')
    const answer = ok(await poll.answer)
    assert.equal(answer.to_device.events.length, 1)
    assert.equal(count(answer), 3)
    assert.deepEqual(answer.device_unused_fallback_key_types, [CURVE])
  })

  test('does not end a wait because its count differs from the default (Synapse timeout_with_otks)', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: keys(ids(2)) })
    const poll = await longPoll(server, alice, await caughtUp(alice))
    await send(server, bob, { [alice.userId]: { [alice.deviceId]: {} } }, 'no-news')
    assert.equal(ok(await poll.answer).to_device.events.length, 1, 'the message ended the wait')
  })
})

describe('wakes', () => {
  test('come at half of the acknowledged count, at each further halving, and at zero', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: keys(ids(10)) })
    let since = await caughtUp(alice)
    const seen: number[] = []
    let poll = await longPoll(server, alice, since)
    for (let left = 9; left >= 0; left--) {
      await claim(server, bob, alice)
      if (![5, 2, 1, 0].includes(left)) continue
      const answer = ok(await poll.answer)
      seen.push(count(answer))
      assert.notEqual(answer.next_batch, since, 'a wake advances the token')
      since = answer.next_batch
      if (left > 0) poll = await longPoll(server, alice, since)
    }
    assert.deepEqual(seen, [5, 2, 1, 0])
  })

  test('count from the acknowledged count, not from the count at the start of the wait', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: keys(ids(10)) })
    const since = await caughtUp(alice)
    await claimNames(server, bob, alice, 4)
    const poll = await longPoll(server, alice, since)
    await claim(server, bob, alice)
    assert.equal(count(ok(await poll.answer)), 5)
  })

  test('ignore the count of an answer that the client did not receive', async () => {
    for (const meanwhile of ['nothing', 'a message to somebody else']) {
      const alice = await newDevice()
      await upload(server, alice, { one_time_keys: keys(ids(50)) })
      const since = await caughtUp(alice)
      const lost = await abandonedPoll(alice, since)
      await claimNames(server, bob, alice, 20)
      if (meanwhile !== 'nothing') await send(server, bob, { [bob.userId]: { '*': {} } }, 'moves on')
      await lost.abandon()
      const poll = await longPoll(server, alice, since)
      await claimNames(server, bob, alice, 5)
      assert.equal(count(ok(await poll.answer)), 25, `with ${meanwhile} in between`)
    }
  })

  test('count from an answer once the device has sent its token', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: keys(ids(50)) })
    const since = await caughtUp(alice)
    await claimNames(server, bob, alice, 20)
    await send(server, bob, { [alice.userId]: { '*': {} } }, 'carries-30')
    const advertised = await sync(server, alice, { since })
    assert.equal(count(advertised), 30)
    const poll = await longPoll(server, alice, advertised.next_batch)
    await claimNames(server, bob, alice, 15)
    assert.equal(count(ok(await poll.answer)), 15, 'no longer woken at 25')
  })

  test('count from an upload rather than from an earlier answer', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: keys(ids(50)) })
    const since = await caughtUp(alice)
    await claimNames(server, bob, alice, 24)
    await send(server, bob, { [alice.userId]: { '*': {} } }, 'carries-26')
    const before = await sync(server, alice, { since })
    await upload(server, alice, { one_time_keys: keys(ids(14, 50)) })
    const poll = await longPoll(server, alice, before.next_batch)
    await claimNames(server, bob, alice, 20)
    assert.equal(count(ok(await poll.answer)), 20)
  })

  test('come at the first use of a fallback key, and not at the second', async () => {
    const alice = await newDevice()
    await upload(server, alice, { fallback_keys: fallback('F') })
    const first = await longPoll(server, alice, await caughtUp(alice))
    await claim(server, bob, alice)
    const woken = ok(await first.answer)
    assert.deepEqual(woken.device_unused_fallback_key_types, [])
    const second = await longPoll(server, alice, woken.next_batch)
    await claim(server, bob, alice)
    await send(server, bob, { [alice.userId]: { [alice.deviceId]: {} } }, 'second-use')
    assert.equal(ok(await second.answer).to_device.events.length, 1, 'only the message woke it')
  })

  test('between two polls are answered at once, and only once', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: keys(ids(2)) })
    const since = await caughtUp(alice)
    await claimNames(server, bob, alice, 2)
    const late = await sync(server, alice, { since, timeout: '60000' })
    assert.equal(count(late), 0)
    assert.notEqual(late.next_batch, since)
    const poll = await longPoll(server, alice, late.next_batch)
    await send(server, bob, { [alice.userId]: { [alice.deviceId]: {} } }, 'fence')
    assert.equal(ok(await poll.answer).to_device.events.length, 1)
  })

  test('do not come from an upload, whose own answer acknowledges the new count', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: keys(ids(4)) })
    const poll = await longPoll(server, alice, await caughtUp(alice))
    await upload(server, alice, { one_time_keys: keys(ids(4, 10)) })
    await claimNames(server, bob, alice, 4)
    assert.equal(count(ok(await poll.answer)), 4)
  })

  test('come at a reset, and advance the token', async () => {
    const alice = await newDevice()
    await upload(server, alice, { one_time_keys: keys(ids(4)) })
    const since = await caughtUp(alice)
    const poll = await longPoll(server, alice, since)
    await reset(server, alice, { all: true })
    const answer = ok(await poll.answer)
    assert.equal(count(answer), 0)
    assert.notEqual(answer.next_batch, since)
  })
})

describe('tokens', () => {
  test('that are malformed or of another device get the answer of a first sync, with everyone changed', async () => {
    const alice = await newDevice()
    const carol = await newDevice()
    await upload(server, carol, { device_keys: deviceKeys(carol) })
    const query = { device_keys: { [carol.userId]: [], [bob.userId]: [] } }
    ok(await server.call('POST', `${CLIENT}/keys/query`, { token: alice.token, body: query }))
    await server.call('PUT', `${CLIENT}/user/${alice.userId}/account_data/org.example`, {
      token: alice.token,
      body: { a: 1 },
    })
    const mine = await caughtUp(alice)
    const strangers = await caughtUp(bob)
    const [version, epoch, position, mac] = mine.split('.')
    for (const since of [
      '',
      'x',
      's72594_4483_1934',
      strangers,
      `${mine}x`,
      [version, epoch, String(Number(position) + 1000), mac].join('.'),
      [version, 'other-epoch', position, mac].join('.'),
      `${mine}.${mine}`,
      'é\u{1F600}',
      'x'.repeat(5000),
    ]) {
      const answer = await sync(server, alice, { since, timeout: '60000' })
      assert.deepEqual(
        new Set(answer.device_lists?.changed),
        new Set([alice.userId, bob.userId, carol.userId]),
        `for the token ${since.slice(0, 40)}`,
      )
      assert.deepEqual(answer.account_data.events, [{ type: 'org.example', content: { a: 1 } }])
    }
  })

  test('of a first sync bring no device_lists; of a quiet sync neither those nor account data', async () => {
    const alice = await newDevice()
    const first = await sync(server, alice)
    assert.equal(first.device_lists, undefined)
    const second = await sync(server, alice, { since: first.next_batch })
    assert.deepEqual([second.device_lists, second.account_data], [undefined, undefined])
  })

  test('are still valid after a restart', async () => {
    const one = await startTestServer()
    const alice = await one.login('alice', 'A')
    const since = (await sync(one, alice)).next_batch
    const { dataDir } = one
    await one.close()
    await using two = await startTestServer({ dataDir })
    const answer = await sync(two, alice, { since })
    assert.deepEqual([answer.device_lists, answer.next_batch], [undefined, since])
    await one[Symbol.asyncDispose]()
  })
})

describe('device_lists', () => {
  test('report a change to its user and to users who queried the keys, and end their waits', async () => {
    const [alice, asker, stranger] = [await newDevice(), await newDevice(), await newDevice()]
    const query = { device_keys: { [alice.userId]: [] } }
    ok(await server.call('POST', `${CLIENT}/keys/query`, { token: asker.token, body: query }))
    const polls = {
      own: await longPoll(server, alice, await caughtUp(alice)),
      asker: await longPoll(server, asker, await caughtUp(asker)),
      stranger: await longPoll(server, stranger, await caughtUp(stranger)),
    }
    await upload(server, alice, { device_keys: deviceKeys(alice) })
    const [own, asked] = [ok(await polls.own.answer), ok(await polls.asker.answer)]
    assert.deepEqual(own.device_lists, { changed: [alice.userId], left: [] })
    assert.deepEqual(asked.device_lists, { changed: [alice.userId], left: [] })
    await send(server, bob, { [stranger.userId]: { '*': {} } }, 'stranger')
    assert.equal(ok(await polls.stranger.answer).device_lists, undefined)
  })

  test('do not report a repeat of the same device keys, but report a new login and a logout', async () => {
    const alice = await newDevice()
    await upload(server, alice, { device_keys: deviceKeys(alice) })
    let since = await caughtUp(alice)
    await upload(server, alice, { device_keys: deviceKeys(alice) })
    assert.equal((await sync(server, alice, { since })).device_lists, undefined)
    const second = await loginAgain(alice, 'SECOND')
    const login = await sync(server, alice, { since })
    assert.deepEqual(login.device_lists.changed, [alice.userId])
    since = login.next_batch
    ok(await server.call('POST', `${CLIENT}/logout`, { token: second.token }))
    assert.deepEqual((await sync(server, alice, { since })).device_lists.changed, [alice.userId])
    const changes = await server.call('GET', `${CLIENT}/keys/changes?from=${since}&to=x`, {
      token: alice.token,
    })
    assert.deepEqual(ok(changes), { changed: [alice.userId], left: [] })
  })
})

describe('a first sync of more than a page', () => {
  test('continues at once, page by page, with the counts of each moment, and then waits', async () => {
    const alice = await newDevice()
    const body = { text: 'x'.repeat(60_000) }
    for (let n = 0; n < 20; n++) {
      const path = `${CLIENT}/user/${alice.userId}/account_data/org.example.${n}`
      ok(await server.call('PUT', path, { token: alice.token, body }))
      await send(server, bob, { [alice.userId]: { '*': { ...body, n } } }, `page-${alice.deviceId}-${n}`)
    }
    const first = await sync(server, alice)
    assert.ok(JSON.stringify(first).length < 2.3 * 1024 * 1024)
    await upload(server, alice, { one_time_keys: keys(ids(3)) })
    const second = await sync(server, alice, { since: first.next_batch, timeout: '60000' })
    assert.equal(count(second), 3)
    const numbers = [first, second].flatMap(({ to_device: { events } }) =>
      events.map((event: { content: { n: number } }) => event.content.n),
    )
    assert.deepEqual(
      numbers,
      ids(20).map((_, n) => n),
    )
    const types = [first, second].flatMap(({ account_data: { events } }) => events)
    assert.equal(new Set(types.map(({ type }) => type)).size, 20)
    assert.equal(types.length, 20)
    const poll = await longPoll(server, alice, second.next_batch)
    await send(server, bob, { [alice.userId]: { '*': {} } }, `end-${alice.deviceId}`)
    assert.equal(ok(await poll.answer).to_device.events.length, 1)
  })
})

describe('the request', () => {
  test('is refused with a malformed filter, an unknown filter ID, or from instead of since', async () => {
    const alice = await newDevice()
    refused(await trySync(server, alice, { filter: '{"broken"' }), 400, 'M_NOT_JSON')
    for (const filter of ['12345', 'x', '-1', '1e1']) {
      refused(await trySync(server, alice, { filter }), 400, 'M_INVALID_PARAM')
    }
    refused(await trySync(server, alice, { from: 'x' }), 400, 'M_INVALID_PARAM')
    for (const timeout of ['x', '-1', 'NaN', 'Infinity', '1e999']) {
      refused(await trySync(server, alice, { timeout }), 400, 'M_INVALID_PARAM')
    }
  })

  test('accepts the ID of a filter that the same user uploaded', async () => {
    const [alice, other] = [await newDevice(), await newDevice()]
    const path = `${CLIENT}/user/${encodeURIComponent(alice.userId)}/filter`
    const { filter_id } = ok(await server.call('POST', path, { token: alice.token, body: {} }))
    await sync(server, alice, { filter: filter_id })
    refused(await trySync(server, other, { filter: filter_id }), 400, 'M_INVALID_PARAM')
  })

  test('receives account data of another device once, and is woken by it', async () => {
    const alice = await newDevice()
    const second = await loginAgain(alice, 'SECOND')
    const poll = await longPoll(server, alice, await caughtUp(alice))
    const path = `${CLIENT}/user/${encodeURIComponent(alice.userId)}/account_data/m.secret_storage.default_key`
    ok(await server.call('PUT', path, { token: second.token, body: { key: 'k' } }))
    const event = { type: 'm.secret_storage.default_key', content: { key: 'k' } }
    const answer = ok(await poll.answer)
    assert.deepEqual(answer.account_data.events, [event])
    assert.equal((await sync(server, alice, { since: answer.next_batch })).account_data, undefined)
    assert.deepEqual((await sync(server, alice)).account_data.events, [event])
  })

  test('is answered 401 at once when its session ends while it waits', async () => {
    for (const path of ['/logout', '/logout/all']) {
      const alice = await newDevice()
      const poll = await longPoll(server, alice, await caughtUp(alice))
      ok(await server.call('POST', CLIENT + path, { token: alice.token }))
      const endedMs = performance.now()
      refused(await poll.answer, 401, 'M_UNKNOWN_TOKEN')
      assert.ok(performance.now() - endedMs < 2_000, 'the end of the session woke it')
    }
  })

  test('is answered 401 when a new login replaces the session of its device', async () => {
    const alice = await newDevice()
    const poll = await longPoll(server, alice, await caughtUp(alice))
    const again = await loginAgain(alice, alice.deviceId)
    await send(server, again, { [alice.userId]: { '*': {} } }, 'takeover')
    refused(await poll.answer, 401, 'M_UNKNOWN_TOKEN')
  })

  test('over the limit per device ends the oldest wait', async () => {
    const sizes = { ...server.context.config.sizes, waitingSyncsPerDevice: 2 }
    await using narrow = await startTestServer({ sizes })
    const alice = await narrow.login('alice', 'A')
    const since = (await sync(narrow, alice)).next_batch
    const first = await longPoll(narrow, alice, since)
    await longPoll(narrow, alice, since)
    const third = trySync(narrow, alice, { since, timeout: '60000' })
    assert.equal(ok(await first.answer).next_batch, since)
    await upload(narrow, alice, { device_keys: deviceKeys(alice) })
    assert.deepEqual(ok(await third).device_lists.changed, [alice.userId])
  })
})
