/**
 * The rollback fence over PostgreSQL (key-pool.md "Rollback fence"): its causes, events that do not raise it, and its
 * effects. Databases are really restored: dropped, and replaced by the earlier copy. Needs LATCHKEY_TEST_POSTGRES.
 */
import assert from 'node:assert/strict'
import { readdirSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { DeviceId } from '@latchkey/protocol'
import type { Session } from '../../src/session.ts'
import { login, poolStatus, USER } from '../store-contract/test-device.ts'
import { assertRestoredDevices } from '../support/restored-device.ts'
import { RewindableDatabase, skip } from '../support/rewindable-database.ts'
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
  send,
  sync,
  untilServed,
  upload,
} from '../support/store-calls.ts'

test('a database restored from before the claims raises the fence at the start, and no key is issued twice', {
  skip,
}, async () => {
  await using database = await RewindableDatabase.create()
  const directory = database.newDirectory()
  const before = await database.open(directory)
  const session = await login(before.store, NOW)
  await upload(before.store, session, keys(0, 10), [FALLBACK])
  await before.store.close()
  await database.backUp()

  const lost = await database.open(directory)
  assert.deepEqual(kindsOf(lost.events), ['stands'])
  const issued = await claims(lost.store, 4)
  const synced = await sync(lost.store, session)
  await lost.store.close()
  await database.restore()

  const after = await database.open(directory)
  assert.deepEqual(kindsOf(after.events), ['raised'])
  assert.deepEqual(await claims(after.store, 3), ['FALLBACK', 'FALLBACK', 'FALLBACK'])
  const status = await poolStatus(after.store, session)
  assert.equal(countOf(status), 0)
  assert.notEqual(status.epoch, synced.epoch)
  assert.ok(status.generation > synced.pools.generation)
  // The client learns it from its next sync, and continues.
  const reading = await sync(after.store, session, { epoch: synced.epoch, position: synced.position })
  assert.equal(reading.newEpoch, true)
  assert.equal(reading.signalled, true)
  assert.equal(countOf(reading.pools), 0)
  const { outcomes } = await upload(after.store, session, keys(5, 15))
  assert.deepEqual(
    [...outcomes.values()],
    [...Array.from({ length: 5 }, () => 'already_removed'), ...Array.from({ length: 5 }, () => 'stored')],
  )
  const fresh = await claims(after.store, 5)
  assert.ok(fresh.every((key) => !issued.includes(key)))
  assert.deepEqual(fresh, ['K0010', 'K0011', 'K0012', 'K0013', 'K0014'])
})

test('a database restored under running processes raises the fence once', {
  skip,
}, async () => {
  await using database = await RewindableDatabase.create()
  const directories = [database.newDirectory(), database.newDirectory()] as const
  const setUp = await database.open(directories[0])
  const session = await login(setUp.store, NOW)
  await upload(setUp.store, session, keys(0, 50))
  await setUp.store.close()
  await database.backUp()

  const one = await database.open(directories[0])
  const two = await database.open(directories[1])
  const issued = [...(await claims(one.store, 5)), ...(await claims(two.store, 5))]
  assert.equal(new Set(issued).size, 10)
  await database.restore()

  const answers = await Promise.allSettled(
    [one, two, one, two].map(({ store }) => untilServed(() => claim(store))),
  )
  for (const answer of answers) assert.deepEqual(answer, { status: 'fulfilled', value: undefined })
  await upload(two.store, session, keys(50, 60))
  const again = [...(await claims(one.store, 5)), ...(await claims(two.store, 5))]
  assert.deepEqual(
    again.toSorted(),
    keys(50, 60).map(({ keyId }) => keyId as string),
  )
  const raised = [...one.events, ...two.events].filter(({ kind }) => kind === 'raised')
  assert.equal(raised.length, 1)
  assert.deepEqual(await database.query(`select fence::int from stream`), [{ fence: 1 }])
})

test('a process that is closed or killed and starts again does not raise the fence', { skip }, async () => {
  await using database = await RewindableDatabase.create()
  let directory = database.newDirectory()
  let session: Session | undefined
  for (let round = 0; round < 5; round++) {
    const { store, events } = await database.open(directory)
    session ??= await login(store, NOW)
    await upload(store, session, keys(round * 10, round * 10 + 10))
    // All connections are cut during claims, as when the process is killed.
    const claiming = Promise.allSettled(Array.from({ length: 5 }, () => claim(store)))
    await database.cutAll()
    await claiming
    if (round % 2 === 0) await store.close()
    else {
      // The files of a killed process, without its locks: moved, because a copied witness is refused.
      const left = database.newDirectory()
      for (const name of readdirSync(directory).filter((file) => !file.includes('.lock')))
        renameSync(join(directory, name), join(left, name))
      directory = left
    }
    assert.deepEqual(kindsOf(events), ['stands'])
  }
})

test('the next write detects a row that is behind, although no connection was lost', {
  skip,
}, async () => {
  await using database = await RewindableDatabase.create()
  const { store, events } = await database.open()
  const session = await login(store, NOW)
  await upload(store, session, keys(0, 10))
  await claims(store, 2)
  await database.query(`update writers set n = 0`)
  assert.equal(await claim(store), undefined)
  assert.deepEqual(kindsOf(events), ['stands', 'raised'])
})

test('the next write detects a database without the acknowledged epoch, although its counters are higher', {
  skip,
}, async () => {
  await using database = await RewindableDatabase.create()
  const { store, events } = await database.open()
  const session = await login(store, NOW)
  await upload(store, session, keys(0, 10))
  await database.query(`update stream set epoch = 'earlier'`)
  await database.query(`update writers set n = n + 1000`)
  assert.equal(await claim(store), undefined)
  assert.deepEqual(kindsOf(events), ['stands', 'raised'])
})

test('without its witness a process reports it and does not raise the fence; a sync token still proves a rollback', {
  skip,
}, async () => {
  await using database = await RewindableDatabase.create()
  const before = await database.open()
  const session = await login(before.store, NOW)
  await upload(before.store, session, keys(0, 10))
  await before.store.close()
  await database.backUp()
  const lost = await database.open()
  await claims(lost.store, 5)
  await send(lost.store, session, 1)
  const synced = await sync(lost.store, session)
  await lost.store.close()
  await database.restore()

  const after = await database.open()
  assert.deepEqual(kindsOf(after.events), ['no_witness', 'stands'])
  const reading = await sync(after.store, session, { epoch: synced.epoch, position: synced.position })
  assert.deepEqual(kindsOf(after.events), ['no_witness', 'stands', 'raised'])
  assert.equal(reading.newEpoch, true)
  assert.equal(countOf(reading.pools), 0)
  assert.ok(reading.position > synced.position)
  // A second token of the same epoch does not raise the fence again.
  await sync(after.store, session, { epoch: synced.epoch, position: synced.position + 1 })
  assert.equal(after.events.filter(({ kind }) => kind === 'raised').length, 1)
})

test('a token of an unknown epoch raises the fence, and the next one of that epoch does not', {
  skip,
}, async () => {
  await using database = await RewindableDatabase.create()
  const { store, events } = await database.open()
  const session = await login(store, NOW)
  await sync(store, session, { epoch: 'NeverHad', position: 3 })
  await sync(store, session, { epoch: 'NeverHad', position: 7 })
  assert.equal(events.filter(({ kind }) => kind === 'raised').length, 1)
})

test('a device that was removed before a raise of the fence is not purged again when it logs in', {
  skip,
}, async () => {
  await using database = await RewindableDatabase.create()
  await assertRestoredDevices((await database.open()).store)
})

test('a token of a former epoch acknowledges nothing after its end, so no message is lost', {
  skip,
}, async () => {
  await using database = await RewindableDatabase.create()
  const directory = database.newDirectory()
  const before = await database.open(directory)
  const session = await login(before.store, NOW)
  await send(before.store, session, 1)
  const first = await sync(before.store, session)
  await send(before.store, session, 2)
  await before.store.close()
  await database.backUp()
  const lost = await database.open(directory)
  for (const n of [3, 4, 5, 6]) await send(lost.store, session, n)
  const synced = await sync(lost.store, session)
  await lost.store.close()
  await database.restore()

  const after = await database.open(directory)
  await send(after.store, session, 7)
  // The later token had received message 2, the earlier one had not.
  const early = await sync(after.store, session, { epoch: first.epoch, position: first.position })
  assert.deepEqual(messagesOf(early), [2, 7])
  const late = await sync(after.store, session, { epoch: synced.epoch, position: synced.position })
  assert.deepEqual(messagesOf(late), [7])
})

test('messages sent after an unnoticed rollback are delivered, although their positions were used before', {
  skip,
}, async () => {
  await using database = await RewindableDatabase.create()
  const before = await database.open()
  const session = await login(before.store, NOW)
  const other = await login(before.store, NOW, USER, 'OTHER' as DeviceId)
  await before.store.close()
  await database.backUp()
  const lost = await database.open()
  for (const n of [1, 2, 3, 4, 5]) await send(lost.store, session, n)
  const synced = await sync(lost.store, session)
  await lost.store.close()
  await database.restore()

  // Neither process has a witness, and one opens the database after the other has written to it.
  const one = await database.open()
  for (const n of [6, 7]) await send(one.store, session, n)
  const seen = await sync(one.store, other)
  const two = await database.open()
  const reading = await sync(two.store, session, { epoch: synced.epoch, position: synced.position })
  assert.equal(two.events.filter(({ kind }) => kind === 'raised').length, 1)
  assert.deepEqual(messagesOf(reading), [6, 7])
  assert.equal((await sync(one.store, other, { epoch: seen.epoch, position: seen.position })).newEpoch, true)
})

test('a raise purges fallback keys as well if more than six days may have been lost', {
  skip,
}, async () => {
  for (const days of [5, 7]) {
    await using database = await RewindableDatabase.create()
    const directory = database.newDirectory()
    const before = await database.open(directory)
    const session = await login(before.store, NOW)
    await upload(before.store, session, keys(0, 5), [FALLBACK])
    await before.store.close()
    await database.backUp()
    const lost = await database.open(directory)
    await claims(lost.store, 2)
    await lost.store.close()
    await database.restore()
    // The age is measured by the clock of the database alone.
    await database.query(`update writers set ts = ts - ${days * DAY_MS} where ts > 0`)
    const after = await database.open(directory, () => NOW - 1000 * DAY_MS)
    assert.equal(await claim(after.store), days === 5 ? 'FALLBACK' : undefined)
    const [event] = after.events
    assert.equal(event?.kind === 'raised' && event.droppedFallbackKeys, days === 7)
  }
})

test('a clock that moves backwards does not raise the fence', { skip }, async () => {
  await using database = await RewindableDatabase.create()
  const directory = database.newDirectory()
  let now = NOW
  for (const step of [0, -400 * DAY_MS, 10 * DAY_MS]) {
    now += step
    const { store, events } = await database.open(directory, () => now)
    const session = await login(store, now)
    await upload(store, session, keys(0, 5))
    await store.close()
    assert.deepEqual(kindsOf(events), ['stands'])
  }
})

test('processes that share a directory have separate witnesses, and use them again after a restart', {
  skip,
}, async () => {
  await using database = await RewindableDatabase.create()
  const directory = database.newDirectory()
  const [one, two] = [await database.open(directory), await database.open(directory)]
  const session = await login(one.store, NOW)
  await upload(two.store, session, keys(0, 5))
  const files = (): string[] => readdirSync(directory).filter((name) => !name.includes('.lock'))
  assert.equal(files().length, 2)
  await one.store.close()
  await two.store.close()
  const again = await database.open(directory)
  assert.deepEqual(kindsOf(again.events), ['stands'])
  assert.equal(files().length, 2)
})

test('two restores raise the fence twice, and only keys uploaded after each are issued', {
  skip,
}, async () => {
  await using database = await RewindableDatabase.create()
  const directory = database.newDirectory()
  const setUp = await database.open(directory)
  const session = await login(setUp.store, NOW)
  await setUp.store.close()
  const issued: (string | undefined)[] = []
  for (let round = 0; round < 2; round++) {
    const { store } = await database.open(directory)
    await upload(store, session, keys(round * 10, round * 10 + 10))
    await store.close()
    await database.backUp()
    const lost = await database.open(directory)
    issued.push(...(await claims(lost.store, 5)))
    await lost.store.close()
    await database.restore()
  }
  const { store, events } = await database.open(directory)
  assert.deepEqual(kindsOf(events), ['raised'])
  await upload(store, session, keys(30, 40))
  issued.push(...(await claims(store, 12)).filter((key) => key !== undefined))
  assert.equal(new Set(issued).size, issued.length)
  assert.deepEqual(await database.query(`select fence::int from stream`), [{ fence: 2 }])
})
