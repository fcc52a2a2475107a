/**
 * The embedded store's fence after a rollback that was not detected at the start: the database was restored without its
 * witness, served, and fenced later. Syncs then continue from the trusted position (store/sqlite/trusted-position.ts).
 */
import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { suite, test } from 'node:test'
import { type DeviceId, SIGNED_CURVE25519 } from '@latchkey/protocol'
import type { Store } from '../../src/store.ts'
import { raiseFence } from '../../src/store/sqlite/index.ts'
import { Witness } from '../../src/store/witness.ts'
import { claimer, login, USER } from '../store-contract/test-device.ts'
import { type Opened, RewindableDirectory } from '../support/rewindable-directory.ts'
import {
  claim,
  claims,
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

suite('a database that is restored without its witness and served', () => {
  for (const starts of [1, 3]) {
    test(`for ${starts} starts: a client that saw the lost messages gets those that were sent since the restore`, async () => {
      for (const by of ['command', 'token'] as const) {
        await using directory = new RewindableDirectory()
        const before = await directory.open()
        const session = await login(before.store, NOW)
        const backup = directory.copy()
        for (const n of [1, 2, 3, 4, 5, 6]) await send(before.store, session, n)
        const lost = tokenOf(await sync(before.store, session))
        await before.store.close()
        directory.putBack(backup, { witness: true })
        for (const file of directory.witnesses) rmSync(file)

        let sent: number[] = []
        let opened: Opened | undefined
        for (let start = 0; start < starts; start++) {
          await opened?.store.close()
          opened = await directory.open()
          await send(opened.store, session, 10 + start)
          sent = [...sent, 10 + start]
        }
        assert.ok(opened)
        assert.deepEqual(kindsOf(opened.events), starts === 1 ? ['no_witness', 'stands'] : ['stands'])
        if (by === 'command') {
          await opened.store.close()
          await raiseFence(directory.path, { reason: 'an operator read the log', now: NOW })
          opened = await directory.open()
        }
        const reading = await sync(opened.store, session, lost)
        assert.equal(reading.newEpoch, true)
        assert.deepEqual(messagesOf(reading), sent)
        assert.deepEqual(messagesOf(await sync(opened.store, session, tokenOf(reading))), [])
      }
    })
  }

  test('loses fallback keys according to the time of the last write before the restore', async () => {
    for (const days of [1, 30]) {
      for (const witness of ['restored too', 'lost'] as const) {
        await using directory = new RewindableDirectory()
        let now = NOW
        const open = (): Promise<Opened> => directory.open(() => now)
        const before = await open()
        const session = await login(before.store, NOW)
        await upload(before.store, session, keys(0, 10), [FALLBACK])
        const backup = directory.copy()
        now += days * DAY_MS
        for (const n of [1, 2, 3, 4, 5]) await send(before.store, session, n)
        const lost = tokenOf(await sync(before.store, session))
        await before.store.close()
        directory.putBack(backup, { witness: true })
        if (witness === 'lost') for (const file of directory.witnesses) rmSync(file)
        const { store, events } = await open()
        assert.equal(await claim(store), 'K0000')
        await sync(store, session, lost)
        const raised = events.at(-1)
        assert.equal(raised?.kind === 'raised' && raised.droppedFallbackKeys, days === 30)
        assert.equal(await claim(store), days === 30 ? undefined : 'FALLBACK')
      }
    }
  })
})

test('a token of an epoch whose raise was lost acknowledges no message that was sent since', async () => {
  await using directory = new RewindableDirectory()
  const before = await directory.open()
  const session = await login(before.store, NOW)
  await before.store.close()
  const backup = directory.copy()
  await raiseFence(directory.path, { reason: 'a test', now: NOW })
  const raised = await directory.open()
  for (const n of [1, 2]) await send(raised.store, session, n)
  const lost = tokenOf(await sync(raised.store, session))
  await raised.store.close()
  directory.putBack(backup, { witness: true })
  const { store, events } = await directory.open()
  for (const n of [3, 4]) await send(store, session, n)
  assert.deepEqual(messagesOf(await sync(store, session, lost)), [3, 4])
  assert.deepEqual(kindsOf(events), ['stands', 'raised'])
})

test('writes after a raise are trusted again', async () => {
  await using directory = new RewindableDirectory()
  let now = NOW
  const open = (): Promise<Opened> => directory.open(() => now)
  const before = await open()
  const session = await login(before.store, NOW)
  await before.store.close()
  for (const file of directory.witnesses) rmSync(file)
  now += 30 * DAY_MS
  const unwitnessed = await open()
  const prove = (epoch: string): Promise<unknown> => sync(unwitnessed.store, session, { epoch, position: 3 })
  await prove('NeverHad')
  await prove('NorThis')
  const [, , ...raises] = unwitnessed.events
  assert.deepEqual(kindsOf(unwitnessed.events), ['no_witness', 'stands', 'raised', 'raised'])
  assert.deepEqual(
    raises.map((event) => event.kind === 'raised' && event.droppedFallbackKeys),
    [true, false],
  )
  await send(unwitnessed.store, session, 1)
  const first = tokenOf(await sync(unwitnessed.store, session))
  await send(unwitnessed.store, session, 2)
  const backup = directory.copy()
  await claims(unwitnessed.store, 1)
  await unwitnessed.store.close()
  directory.putBack(backup, { witness: false })
  const { store, events } = await open()
  assert.deepEqual(kindsOf(events), ['raised'])
  // The client has seen the first message and does not get it again.
  assert.deepEqual(messagesOf(await sync(store, session, first)), [2])
})

test('a start compares every witness in the directory, not only the one that it takes', async () => {
  await using directory = new RewindableDirectory()
  const before = await directory.open()
  const session = await login(before.store, NOW)
  await upload(before.store, session, keys(0, 10))
  await before.store.close()
  const [first = ''] = directory.witnesses
  const held = Witness.take(first)
  assert.ok(held)
  const second = await directory.open()
  assert.equal(directory.witnesses.length, 2)
  const backup = directory.copy()
  assert.deepEqual(await claims(second.store, 2), ['K0000', 'K0001'])
  await second.store.close()
  held.close()
  directory.putBack(backup, { witness: false })
  const { store, events } = await directory.open()
  const [raised] = events
  assert.match(raised?.kind === 'raised' ? raised.reason : '', /^another process acknowledged write/)
  assert.equal(await claim(store), undefined)
  await store.close()
  assert.deepEqual((await directory.open()).events, [{ kind: 'stands', number: 1 }])
})

test('after a raise a claim of many devices does not delay other claims', async () => {
  await using directory = new RewindableDirectory()
  const before = await directory.open()
  const ids = Array.from({ length: 450 }, (_, n) => `D${n}` as DeviceId)
  const logIn = (store: Store, deviceId: DeviceId): ReturnType<typeof login> =>
    login(store, NOW, USER, deviceId)
  await logIn(before.store, OTHER)
  await Promise.all(
    ids.map(async (id) => {
      const session = await logIn(before.store, id)
      await upload(before.store, session, keys(0, 3), [FALLBACK])
    }),
  )
  await before.store.close()
  await raiseFence(directory.path, { reason: 'a test', dropFallbackKeys: false, now: NOW })
  const { store } = await directory.open()
  const targets = ids.map((deviceId) => ({ userId: USER, deviceId, algorithm: SIGNED_CURVE25519 }))
  const ended: string[] = []
  const [many] = await Promise.all([
    store.pools.claim({ claimer: claimer('bob'), targets, now: NOW }).finally(() => void ended.push('many')),
    claim(store, OTHER).finally(() => void ended.push('one')),
  ])
  assert.deepEqual(ended, ['one', 'many'])
  assert.deepEqual(new Set(many.map((key) => key?.keyId as string)), new Set(['FALLBACK']))
})
