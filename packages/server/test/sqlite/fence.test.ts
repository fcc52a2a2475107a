/**
 * The rollback fence of the embedded store (key-pool.md "Rollback fence"): the causes of a raise and its effects.
 * Directories are really restored: their files are copied, and the copies replace them.
 */
import { keyPools } from '@latchkey/testing/key-pools.ts'
import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { suite, test } from 'node:test'
import { SIGNED_CURVE25519 } from '@latchkey/protocol'
import { DEFAULT_CONFIG, storeOptions } from '../../src/config/config.ts'
import type { FenceEvent } from '../../src/fence/events.ts'
import { startServer } from '../../src/main.ts'
import type { Session } from '../../src/session.ts'
import type { Store } from '../../src/store.ts'
import { openSqliteStore } from '../../src/store/sqlite/index.ts'
import { login, makeKey, poolStatus, USER } from '../store-contract/test-device.ts'
import { assertRestoredDevices } from '../support/restored-device.ts'
import { RewindableDirectory } from '../support/rewindable-directory.ts'
import {
  claim,
  claims,
  countOf,
  DAY_MS,
  FALLBACK,
  keys,
  kindsOf,
  messagesOf,
  NOW,
  OTHER,
  send,
  sync,
  tokenOf,
  upload,
} from '../support/store-calls.ts'
import * as http from '@latchkey/testing/test-client.ts'
import { clientOf, TEST_CONFIG, type TestServer } from '@latchkey/testing/test-server.ts'

suite('a database restored from a backup before the claims', () => {
  test('raises the fence at the start: no key is issued twice, and the client learns all of it', async () => {
    await using directory = new RewindableDirectory()
    const before = await directory.open()
    const session = await login(before.store, NOW)
    await upload(before.store, session, keys(0, 10), [FALLBACK])
    await send(before.store, session, 1)
    const early = tokenOf(await sync(before.store, session))
    await send(before.store, session, 2)
    const backup = directory.copy()
    const issued = await claims(before.store, 4)
    await send(before.store, session, 3)
    const lost = await sync(before.store, session)
    assert.deepEqual(messagesOf(lost), [1, 2, 3])
    await before.store.close()
    directory.putBack(backup, { witness: false })

    const { store, events } = await directory.open()
    assert.deepEqual(kindsOf(events), ['raised'])
    assert.deepEqual(await claims(store, 2), ['FALLBACK', 'FALLBACK'])
    await send(store, session, 4)
    // A client that saw only the first message gets the second; a client that saw the lost third one does not.
    const behind = await sync(store, session, early)
    assert.deepEqual(messagesOf(behind), [2, 4])
    const reading = await sync(store, session, tokenOf(lost))
    assert.deepEqual(messagesOf(reading), [4])
    assert.equal(reading.newEpoch, true)
    assert.equal(reading.signalled, true)
    assert.deepEqual(reading.changedUsers, [USER])
    const { pools } = reading
    assert.notEqual(pools.epoch, lost.epoch)
    assert.ok(pools.generation > lost.pools.generation)
    assert.equal(countOf(pools), 0)
    assert.equal(pools.algorithms[0]?.digest, Buffer.alloc(32).toString('base64url'))
    assert.deepEqual(await poolStatus(store, session), pools)
    const quiet = await sync(store, session, tokenOf(reading))
    assert.deepEqual(
      [quiet.newEpoch, quiet.signalled, quiet.changedUsers, quiet.toDevice],
      [false, false, [], []],
    )

    const { outcomes } = await upload(store, session, keys(8, 14))
    assert.deepEqual(
      [...outcomes.values()],
      ['already_removed', 'already_removed', 'stored', 'stored', 'stored', 'stored'],
    )
    // The ID of a purged key does not conflict with a new key.
    const renewed = await upload(store, session, [makeKey(SIGNED_CURVE25519, 'K0009', 900)])
    assert.deepEqual([...renewed.outcomes.values()], ['stored'])
    const fresh = await claims(store, 5)
    assert.deepEqual(fresh, ['K0010', 'K0011', 'K0012', 'K0013', 'K0009'])
    assert.ok(fresh.every((key) => !issued.includes(key)))
  })

  test('purges a device before its next operation, which shows none of the old keys', async () => {
    const operations: Record<string, (store: Store, session: Session) => Promise<unknown>> = {
      claim: (store) => claim(store, OTHER),
      upload: (store, session) => upload(store, session, []),
      reset: (store, session) =>
        keyPools(store).reset({
          session,
          withdrawal: { all: false, names: [] },
          oneTimeKeys: [],
          fallbackKeys: [],
          now: NOW,
        }),
      inspect: (store, session) => store.pools.inspect(session, { limit: 10 }),
      sync: (store, session) => sync(store, session),
    }
    for (const [name, operate] of Object.entries(operations)) {
      await using directory = new RewindableDirectory()
      const before = await directory.open()
      const session = await login(before.store, NOW, USER, OTHER)
      await upload(before.store, session, keys(0, 5), [FALLBACK])
      const backup = directory.copy()
      const { generation } = await poolStatus(before.store, session)
      await claim(before.store, OTHER)
      await before.store.close()
      directory.putBack(backup, { witness: false })
      const { store } = await directory.open()
      await operate(store, session)
      const status = await poolStatus(store, session)
      assert.equal(status.generation, generation + 1, name)
      const { pools } = await store.pools.inspect(session, { limit: 10 })
      assert.deepEqual(pools[0]?.available, [], name)
      assert.equal(pools[0]?.fallback?.keyId, 'FALLBACK', name)
      assert.equal(await claim(store, OTHER), 'FALLBACK', name)
      // A second operation does not purge again.
      assert.equal((await poolStatus(store, session)).generation, generation + 1, name)
    }
  })

  test('keeps the history of its devices, and new devices are not purged', async () => {
    await using directory = new RewindableDirectory()
    const before = await directory.open()
    const session = await login(before.store, NOW)
    await upload(before.store, session, keys(0, 5))
    await claims(before.store, 2)
    const backup = directory.copy()
    await claims(before.store, 1)
    await before.store.close()
    directory.putBack(backup, { witness: false })
    const { store } = await directory.open()
    const { pools } = await store.pools.inspect(session, { limit: 10 })
    assert.deepEqual(
      pools[0]?.issued.map(({ keyId }) => keyId as string),
      ['K0001', 'K0000'],
    )
    const other = await login(store, NOW, USER, OTHER)
    const { status } = await upload(store, other, keys(100, 103))
    assert.deepEqual([countOf(status), status.generation], [3, 0])
  })

  test('raises the fence at each restore, and not at a start in between', async () => {
    await using directory = new RewindableDirectory()
    const { store: first } = await directory.open()
    const session = await login(first, NOW)
    await first.close()
    const issued: (string | undefined)[] = []
    for (let round = 0; round < 2; round++) {
      const { store } = await directory.open()
      await upload(store, session, keys(round * 10, round * 10 + 10))
      const backup = directory.copy()
      issued.push(...(await claims(store, 5)))
      await store.close()
      directory.putBack(backup, { witness: false })
      const raised = await directory.open()
      assert.deepEqual(kindsOf(raised.events), ['raised'])
      assert.equal(await claim(raised.store), undefined)
      await raised.store.close()
      const again = await directory.open()
      assert.deepEqual(again.events, [{ kind: 'stands', number: round + 1 }])
      await again.store.close()
    }
    const { store } = await directory.open()
    await upload(store, session, keys(30, 35))
    issued.push(...(await claims(store, 5)))
    assert.equal(new Set(issued).size, 15)
  })

  test('raises the fence also when it is newer than the database that it replaces', async () => {
    await using directory = new RewindableDirectory()
    const { store: first } = await directory.open()
    const session = await login(first, NOW)
    const early = directory.copy()
    await upload(first, session, keys(0, 10))
    await claims(first, 3)
    const late = directory.copy()
    const issued = await claims(first, 3)
    await first.close()
    directory.putBack(early, { witness: false })
    const raised = await directory.open()
    await upload(raised.store, session, keys(20, 25))
    await raised.store.close()
    // Its count is higher than the last acknowledged one, but it does not have that write.
    directory.putBack(late, { witness: false })
    const { store, events } = await directory.open()
    assert.deepEqual(kindsOf(events), ['raised'])
    await upload(store, session, keys(30, 32))
    assert.ok((await claims(store, 2)).every((key) => !issued.includes(key)))
  })

  test('loses its fallback keys too when more than six days may have been lost', async () => {
    for (const days of [5, 7]) {
      await using directory = new RewindableDirectory()
      const before = await directory.open(() => NOW)
      const session = await login(before.store, NOW)
      await upload(before.store, session, keys(0, 5), [FALLBACK])
      const backup = directory.copy()
      await claims(before.store, 2)
      await before.store.close()
      directory.putBack(backup, { witness: false })
      const { store, events } = await directory.open(() => NOW + days * DAY_MS)
      const [event] = events
      assert.equal(event?.kind === 'raised' && event.droppedFallbackKeys, days === 7)
      assert.equal(await claim(store), days === 5 ? 'FALLBACK' : undefined)
      // The dropped key does not count as a new one.
      const { fallbackOutcomes } = await upload(store, session, [], [FALLBACK])
      assert.deepEqual([...fallbackOutcomes.values()], [days === 5 ? 'already_stored' : 'already_replaced'])
    }
  })
})

suite('nothing is raised', () => {
  test('by crashes with claims in progress', async () => {
    await using directory = new RewindableDirectory()
    let opened = await directory.open()
    const session = await login(opened.store, NOW)
    const issued: (string | undefined)[] = []
    for (let round = 0; round < 40; round++) {
      const { store } = opened
      await upload(store, session, keys(round * 10, round * 10 + 10))
      const acknowledged: (string | undefined)[] = []
      const pending = Array.from({ length: 8 }, async () => {
        acknowledged.push(await claim(store))
      })
      for (let turns = 0; turns < round % 7; turns++) await new Promise((resolve) => setImmediate(resolve))
      const left = directory.copy()
      issued.push(...acknowledged)
      await Promise.all(pending)
      await store.close()
      directory.putBack(left, { witness: true })
      opened = await directory.open()
      assert.deepEqual(opened.events, [{ kind: 'stands', number: 0 }])
    }
    assert.equal(new Set(issued).size, issued.length)
  })

  test('by clean starts, and by a clock that moves backwards', async () => {
    await using directory = new RewindableDirectory()
    let now = NOW
    for (const step of [0, 0, -400 * DAY_MS, 10 * DAY_MS, 0]) {
      now += step
      const { store, events } = await directory.open(() => now)
      const session = await login(store, now)
      await upload(store, session, keys(0, 5))
      await store.close()
      assert.deepEqual(events, [{ kind: 'stands', number: 0 }])
    }
  })

  test('by a deleted or damaged witness, and an event reports that it is missing', async () => {
    for (const damage of [
      (file: string) => rmSync(file),
      (file: string) => writeFileSync(file, 'x'.repeat(200_000)),
      (file: string) => writeFileSync(file, ''),
    ]) {
      await using directory = new RewindableDirectory()
      const { store } = await directory.open()
      await login(store, NOW)
      await store.close()
      for (const file of directory.witnesses) damage(file)
      const without = await directory.open()
      assert.deepEqual(kindsOf(without.events), ['no_witness', 'stands'])
      await without.store.close()
      const { events } = await directory.open()
      assert.deepEqual(kindsOf(events), ['stands'])
    }
  })
})

suite('a sync token', () => {
  test('of an epoch that the database never had raises the fence, and a second such token does not', async () => {
    await using directory = new RewindableDirectory()
    const before = await directory.open()
    const session = await login(before.store, NOW)
    const other = await login(before.store, NOW, USER, OTHER)
    const backup = directory.copy()
    await upload(before.store, session, keys(0, 5))
    await before.store.close()
    directory.putBack(backup, { witness: false })
    const raised = await directory.open()
    assert.deepEqual(kindsOf(raised.events), ['raised'])
    const [mine, others] = [await sync(raised.store, session), await sync(raised.store, other)].map(tokenOf)
    await raised.store.close()

    directory.putBack(backup, { witness: true })
    const { store, events } = await directory.open()
    assert.deepEqual(kindsOf(events), ['stands'])
    await upload(store, session, keys(10, 15))
    const notified: string[] = []
    store.sync.subscribe({ device() {}, users() {}, everyone: () => notified.push('everyone') })
    const readings = await Promise.all([
      sync(store, session, mine),
      sync(store, session, mine),
      sync(store, other, others),
    ])
    assert.ok(readings.every(({ newEpoch }) => newEpoch))
    assert.deepEqual(
      events.slice(1).map(({ kind }) => kind),
      ['raised'],
    )
    assert.deepEqual(notified, ['everyone'])
    assert.equal(countOf(readings[0]?.pools ?? raisedNothing()), 0)
    assert.ok((readings[0]?.position ?? 0) > (mine?.position ?? Infinity))
    const { formerEnd } = await store.sync.end(mine)
    assert.equal(typeof formerEnd, 'number')
  })

  test('acknowledges no message that was sent since an undetected rollback of the database', async () => {
    await using directory = new RewindableDirectory()
    const before = await directory.open()
    const session = await login(before.store, NOW)
    const backup = directory.copy()
    for (const n of [1, 2, 3, 4]) await send(before.store, session, n)
    const seen = tokenOf(await sync(before.store, session))
    await before.store.close()
    directory.putBack(backup, { witness: true })
    const { store, events } = await directory.open()
    // The client has seen other messages at their positions.
    for (const n of [5, 6]) await send(store, session, n)
    const reading = await sync(store, session, seen)
    assert.deepEqual(kindsOf(events), ['stands', 'raised'])
    assert.deepEqual(messagesOf(reading), [5, 6])
    assert.deepEqual(messagesOf(await sync(store, session, tokenOf(reading))), [])
  })
})

function raisedNothing(): never {
  throw new Error('there is no reading')
}

test('over HTTP: a server restored with its witness detects it by the first token and wakes every client', async () => {
  await using directory = new RewindableDirectory()
  const setUp = await serve(directory)
  const alice = await setUp.login('alice', 'ALICE')
  const bob = await setUp.login('bob', 'BOB')
  await http.upload(setUp, alice, {
    one_time_keys: http.keys(http.ids(10)),
    fallback_keys: http.fallback('f'),
  })
  const bobs = (await http.sync(setUp, bob)).next_batch
  await setUp[Symbol.asyncDispose]()
  const backup = directory.copy()

  const lost = await serve(directory)
  const issued = await http.claimNames(lost, bob, alice, 3)
  await http.send(lost, bob, { [alice.userId]: { ALICE: { n: 1 } } }, 't1')
  const seen = await http.sync(lost, alice)
  assert.equal(seen.to_device.events.length, 1)
  await lost[Symbol.asyncDispose]()
  directory.putBack(backup, { witness: true })

  await using server = await serve(directory)
  const waiting = await http.longPoll(server, bob, bobs)
  const answer = await http.sync(server, alice, { since: seen.next_batch, timeout: '30000' })
  assert.notEqual(answer['dev.latchkey.key_pool'].epoch, seen['dev.latchkey.key_pool'].epoch)
  assert.equal(answer.device_one_time_keys_count[http.CURVE], 0)
  assert.notEqual(answer.next_batch, seen.next_batch)
  // Bob's waiting sync returns the new epoch too, and the next one waits again.
  const { body } = await waiting.answer
  assert.notEqual(body.next_batch, bobs)
  const bobWaits = await http.longPoll(server, bob, body.next_batch)
  const afterwards = await http.claimNames(server, bob, alice, 2)
  assert.ok(afterwards.every((name) => name === `${http.CURVE}:f`))
  await http.upload(server, alice, { one_time_keys: http.keys(http.ids(5, 100)) })
  const fresh = await http.claimNames(server, bob, alice, 5)
  assert.ok(fresh.every((name) => !issued.includes(name)))
  await http.send(server, alice, { [bob.userId]: { BOB: { n: 2 } } }, 't2')
  assert.equal((await bobWaits.answer).body.to_device.events.length, 1)
})

/** A server on the embedded database, regardless of the database of other tests. */
async function serve(directory: RewindableDirectory): Promise<TestServer> {
  const { rates: _unlimited, ...config } = TEST_CONFIG
  const server = await startServer({ ...config, dataDir: directory.path })
  return {
    ...server,
    ...clientOf(server.url),
    dataDir: directory.path,
    [Symbol.asyncDispose]: () => server.close(),
  }
}

test('without a witness writes are not counted, and a token still proves a rollback', async () => {
  await using directory = new RewindableDirectory()
  const events: FenceEvent[] = []
  const open = (): Promise<Store> =>
    openSqliteStore({
      ...storeOptions({ ...DEFAULT_CONFIG, dataDir: directory.path }),
      onFence: (event) => events.push(event),
      now: Date.now,
    })
  const before = await open()
  const session = await login(before, NOW)
  await upload(before, session, keys(0, 5))
  await before.close()
  const backup = directory.copy()
  const lost = await open()
  await send(lost, session, 1)
  const token = tokenOf(await sync(lost, session))
  await lost.close()
  assert.deepEqual(directory.witnesses, [])
  directory.putBack(backup, { witness: true })
  const store = await open()
  assert.equal(countOf((await sync(store, session, token)).pools), 0)
  assert.deepEqual(kindsOf(events), ['stands', 'stands', 'stands', 'raised'])
  await store.close()
})

test('a device that was removed before the fence was raised is not purged again when it logs in', async () => {
  await using directory = new RewindableDirectory()
  await assertRestoredDevices((await directory.open()).store)
})
