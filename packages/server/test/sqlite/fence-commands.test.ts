/**
 * `latchkey fence` on an embedded database: the answers and effects of its commands, on directories that are really
 * restored.
 */
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { suite, test } from 'node:test'
import { adoptFence, fenceStatus, raiseFence } from '../../src/store/sqlite/fence-commands.ts'
import { StoreError } from '../../src/store/store-error.ts'
import { DEVICE, login, USER } from '../store-contract/test-device.ts'
import { RewindableDirectory } from '../support/rewindable-directory.ts'
import { temporaryDirectory } from '@latchkey/testing/run-latchkey.ts'
import {
  claim,
  claims,
  countOf,
  FALLBACK,
  keys,
  NOW,
  OTHER,
  sync,
  tokenOf,
  upload,
} from '../support/store-calls.ts'

suite('the commands of the fence', () => {
  test('status reports the fence and the witnesses', async () => {
    await using directory = new RewindableDirectory()
    const fence = { directory: directory.path }
    const before = await directory.open(() => NOW)
    await assert.rejects(fenceStatus(directory.path, fence), StoreError)
    const session = await login(before.store, NOW)
    const backup = directory.copy()
    await upload(before.store, session, keys(0, 5))
    const { epoch, position } = await before.store.sync.end()
    await before.store.close()
    const fine = await fenceStatus(directory.path, fence)
    assert.deepEqual([fine.epoch, fine.number, fine.position, fine.raised], [epoch, 0, position, []])
    assert.deepEqual(
      fine.witnesses.map(({ file, judgement }) => [file, judgement.kind]),
      directory.witnesses.map((file) => [file, 'holds']),
    )
    directory.putBack(backup, { witness: false })
    const behind = await fenceStatus(directory.path, fence)
    assert.equal(behind.witnesses[0]?.judgement.kind, 'behind')
    await (await directory.open(() => NOW)).store.close()
    const raised = await fenceStatus(directory.path, fence)
    assert.equal(raised.number, 1)
    assert.equal(raised.witnesses[0]?.judgement.kind, 'holds')
    const [ended] = raised.raised
    assert.deepEqual([ended?.epoch, ended?.endedTs], [epoch, NOW])
    assert.match(ended?.reason ?? '', /acknowledged write \d+, the database has \d+/)
  })

  test('raise has the effect of a witness, which then finds nothing to raise for', async () => {
    await using directory = new RewindableDirectory()
    const before = await directory.open(() => NOW)
    const session = await login(before.store, NOW)
    await upload(before.store, session, keys(0, 5), [FALLBACK])
    const backup = directory.copy()
    await claims(before.store, 2)
    const token = tokenOf(await sync(before.store, session))
    await before.store.close()
    directory.putBack(backup, { witness: false })
    const reason = 'restored on purpose'
    assert.equal((await raiseFence(directory.path, { reason, now: NOW })).number, 1)
    const { store, events } = await directory.open(() => NOW)
    assert.deepEqual(events, [{ kind: 'stands', number: 1 }])
    assert.equal(await claim(store), 'FALLBACK')
    assert.equal((await sync(store, session, token)).newEpoch, true)
    await store.close()
    await raiseFence(directory.path, { reason, dropFallbackKeys: true, now: NOW })
    const { raised } = await fenceStatus(directory.path, undefined)
    assert.deepEqual(
      raised.map((ended) => ended.reason),
      [reason, reason],
    )
    assert.equal(await claim((await directory.open(() => NOW)).store), undefined)
  })

  test('raise for one device purges only its pools, even after a crash', async () => {
    await using directory = new RewindableDirectory()
    const before = await directory.open()
    const session = await login(before.store, NOW)
    const other = await login(before.store, NOW, USER, OTHER)
    await upload(before.store, session, keys(0, 5), [FALLBACK])
    await upload(before.store, other, keys(10, 15))
    await claims(before.store, 2)
    const token = tokenOf(await sync(before.store, session))
    const crashed = directory.copy()
    await before.store.close()
    directory.putBack(crashed, { witness: true })
    const device = { userId: USER, deviceId: DEVICE }
    const command = { reason: 'a doubt', device, now: NOW }
    assert.equal((await raiseFence(directory.path, command)).number, 0)
    const unknown = { userId: USER, deviceId: 'NOBODY' as typeof DEVICE }
    await assert.rejects(raiseFence(directory.path, { ...command, device: unknown }), StoreError)
    const { store, events } = await directory.open()
    assert.deepEqual(events, [{ kind: 'stands', number: 0 }])
    const reading = await sync(store, session, token)
    assert.deepEqual([reading.newEpoch, reading.signalled, countOf(reading.pools)], [false, true, 0])
    const { pools } = await store.pools.inspect(session, { limit: 10 })
    assert.equal(pools[0]?.issued.length, 2)
    assert.equal(await claim(store), 'FALLBACK')
    assert.equal(await claim(store, OTHER), 'K0010')
    await store.close()
    await raiseFence(directory.path, { ...command, dropFallbackKeys: true })
    assert.equal(await claim((await directory.open()).store), undefined)
  })

  test('adopt sets the witnesses to the database, and nothing is raised', async () => {
    await using directory = new RewindableDirectory()
    const fence = { directory: directory.path }
    const before = await directory.open()
    const session = await login(before.store, NOW)
    await upload(before.store, session, keys(0, 5))
    const backup = directory.copy()
    await upload(before.store, session, keys(5, 10))
    await before.store.close()
    directory.putBack(backup, { witness: false })
    assert.deepEqual(
      await adoptFence(directory.path, fence),
      directory.witnesses.map((file) => ({ file, adopted: true })),
    )
    const { store, events } = await directory.open()
    assert.deepEqual(events, [{ kind: 'stands', number: 0 }])
    assert.equal(await claim(store), 'K0000')
  })

  test('a directory without a database is an error', async () => {
    using empty = temporaryDirectory()
    const named = (error: unknown): boolean =>
      error instanceof StoreError && error.message.includes(empty.path)
    await assert.rejects(fenceStatus(empty.path, { directory: empty.path }), named)
    assert.deepEqual(readdirSync(empty.path), [])
  })
})
