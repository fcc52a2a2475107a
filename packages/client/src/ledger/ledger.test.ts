/** The ledger: recording, transitions, forgetting, and comparison with a pool. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type Algorithm,
  base64Url,
  digestShare,
  emptyDigest,
  type KeyId,
  type KeyMaterial,
  type KeyName,
  mixIn,
  SIGNED_CURVE25519,
} from '@latchkey/protocol'
import { createHash, randomBytes } from 'node:crypto'
import type { PoolKey, PoolOfAlgorithm } from '../server/answers.ts'
import { memoryStore } from '../store/memory.ts'
import { StoredState } from '../store/stored-state.ts'
import { alignWithPool, poolByDigest } from './compare.ts'
import { explain } from './explain.ts'
import { FALLBACK_KEYS, type KeyRecord, ONE_TIME_KEYS } from './key-record.ts'
import {
  findByHash,
  generatedSoFar,
  hashKeys,
  LEDGER_HEAD,
  MAX_RECORDS,
  moveTo,
  publicKeysOf,
  recordAdopted,
  recordLost,
  recordUploading,
} from './ledger.ts'

const NAME = (id: string): KeyName => `signed_curve25519:${id}` as KeyName
const sha256 = (text: string): Uint8Array => createHash('sha256').update(text).digest()
const NOW = 1_700_000_000_000

type Keys = Record<string, { key: string }>

function keys(...ids: string[]): Keys {
  return Object.fromEntries(
    ids.map((id) => [NAME(id), { key: randomBytes(32).toString('base64').slice(0, 43) }]),
  )
}

function digestOf(some: Keys): string {
  const sum = emptyDigest()
  for (const [name, { key }] of Object.entries(some)) {
    const id = name.slice(name.indexOf(':') + 1) as KeyId
    mixIn(sum, digestShare(sha256, 'signed_curve25519' as Algorithm, id, key as KeyMaterial))
  }
  return base64Url(sum)
}

const only = (from: Keys, ...ids: string[]): Keys =>
  Object.fromEntries(Object.entries(from).filter(([name]) => ids.some((id) => NAME(id) === name)))

function inPool(some: Keys): PoolKey[] {
  return Object.entries(some).map(([name, { key }]) => ({
    name: name as KeyName,
    hash: base64Url(sha256(key)),
    ts: NOW,
  }))
}

function poolOf(available: Keys, issued: Keys = {}): PoolOfAlgorithm {
  return {
    digest: digestOf(available),
    available: inPool(available),
    issued: inPool(issued),
    fallback: undefined,
  }
}

async function ledger(published: Keys[] = []): Promise<StoredState> {
  const state = await StoredState.open(memoryStore(), [ONE_TIME_KEYS, FALLBACK_KEYS, LEDGER_HEAD])
  for (const batch of published) {
    const hashed = await hashKeys(batch)
    await state.update((transaction) => {
      recordUploading(transaction, hashed, NOW)
      for (const { name } of hashed) moveTo(transaction, ONE_TIME_KEYS, name, 'available', NOW)
    })
  }
  return state
}

function states(state: StoredState): Promise<Record<string, string>> {
  return state.read((view) =>
    Object.fromEntries(
      [...view.all(ONE_TIME_KEYS)].map(([id, { state: now }]) => [id.split(':')[1] ?? id, now]),
    ),
  )
}

test('keys of one upload are ordered by ID, and uploads in the order in which they were made', async () => {
  const state = await ledger([keys('b', 'a'), keys('9', 'Z')])
  const order = await state.read((view) => publicKeysOf(view, SIGNED_CURVE25519).map(([name]) => name))
  assert.deepEqual(order, ['a', 'b', '9', 'Z'].map(NAME))
  assert.equal(await state.read(generatedSoFar), 4)
})

test('a repeated upload changes nothing; another key under the same ID moves the former one aside', async () => {
  const first = keys('a')
  const state = await ledger([first])
  const generation = await state.read((view) => view.generation)
  const same = await hashKeys(first)
  await state.update((transaction) => recordUploading(transaction, same, NOW))
  assert.equal(await state.read((view) => view.generation), generation)

  const other = await hashKeys(keys('a'))
  await state.update((transaction) => recordUploading(transaction, other, NOW))
  const former = await state.read((view) => findByHash(view, ONE_TIME_KEYS, same[0]?.hash ?? ''))
  assert.equal(former?.[1].state, 'lost')
  assert.match(former?.[0] ?? '', /^signed_curve25519:a~/)
  const [explanation] = await explain((look) => state.read(look), first[NAME('a')]?.key ?? '')
  assert.equal(explanation?.name, NAME('a'))
  assert.equal(explanation.verdict, 'lost')
})

test('a withdrawn key that is uploaded again becomes uploading', async () => {
  const some = keys('a')
  const state = await ledger([some])
  const hashed = await hashKeys(some)
  await state.update((transaction) => moveTo(transaction, ONE_TIME_KEYS, NAME('a'), 'withdrawn', NOW))
  await state.update((transaction) => recordUploading(transaction, hashed, NOW))
  assert.deepEqual(await states(state), { a: 'uploading' })
})

test('history beyond the limit is forgotten, oldest first; live keys never are', async () => {
  const state = await ledger()
  const hashed = Array.from({ length: MAX_RECORDS + 100 }, (_, i) => ({
    name: NAME(String(i).padStart(5, '0')),
    key: `key ${i}`,
    hash: `hash ${i}`,
    share: '',
  }))
  await state.update((transaction) => {
    recordUploading(transaction, hashed, NOW)
    for (const { name } of hashed.slice(10, 500)) moveTo(transaction, ONE_TIME_KEYS, name, 'used', NOW)
  })
  const extra = await hashKeys(keys('zzzzz'))
  await state.update((transaction) => recordUploading(transaction, extra, NOW))
  const left = await state.read((view) => [...view.all(ONE_TIME_KEYS).keys()])
  assert.equal(left.length, MAX_RECORDS)
  assert.ok(left.includes(NAME('00009')), 'a live key, the oldest of all')
  assert.ok(!left.includes(NAME('00010')), 'the oldest of history')
  assert.ok(left.includes(NAME('00499')), 'history within the bound')
})

test('the digest of the rest of a pool is that of the last keys of the ledger', async () => {
  const some = keys('a', 'b', 'c')
  const state = await ledger([some])
  const found = (digest: string) => state.read((view) => poolByDigest(view, SIGNED_CURVE25519, digest))
  assert.equal((await found(digestOf(some)))?.count, 3)
  const last = await found(digestOf(only(some, 'c')))
  assert.equal(last?.count, 1)
  assert.deepEqual(
    last.before.map(([name]) => name),
    ['a', 'b'].map(NAME),
  )
  assert.equal((await found(digestOf({})))?.count, 0)
  assert.equal(await found(digestOf(only(some, 'a'))), undefined)
  assert.equal(await found(digestOf({ ...some, ...keys('d') })), undefined)
})

test('keys of an unanswered upload may or may not be in the digest', async () => {
  const [some, late] = [keys('a', 'b'), keys('c')]
  const state = await ledger([some])
  const hashed = await hashKeys(late)
  await state.update((transaction) => recordUploading(transaction, hashed, NOW))
  const found = (digest: string) => state.read((view) => poolByDigest(view, SIGNED_CURVE25519, digest))
  const without = await found(digestOf(only(some, 'b')))
  assert.deepEqual([without?.count, without?.hasUploading], [1, false])
  const beside = await found(digestOf({ ...only(some, 'b'), ...late }))
  assert.deepEqual([beside?.count, beside?.hasUploading], [2, true])
})

test('adopted keys are known by their hash alone, so no digest with them is explained', async () => {
  const some = keys('a', 'b')
  const state = await ledger()
  await state.update((transaction) => recordAdopted(transaction, inPool(some), NOW))
  const found = await state.read((view) => poolByDigest(view, SIGNED_CURVE25519, digestOf(some)))
  assert.equal(found, undefined)
  const [explanation] = await explain((look) => state.read(look), 'a')
  assert.equal(explanation?.verdict, 'adopted')
})

test('comparing a pool distinguishes unknown, spent, missing and newly issued keys', async () => {
  const mine = keys('a', 'b', 'c', 'd', 'e')
  const foreign = keys('x')
  const state = await ledger([mine])
  await state.update((transaction) => moveTo(transaction, ONE_TIME_KEYS, NAME('a'), 'used', NOW))
  const pool = poolOf({ ...only(mine, 'a', 'e'), ...foreign }, only(mine, 'b'))
  const found = await state.update((transaction) =>
    alignWithPool(transaction, SIGNED_CURVE25519, pool, { complete: true, now: NOW + 1 }),
  )
  assert.deepEqual(found, {
    unknown: [NAME('x')],
    spent: [NAME('a')],
    missing: ['c', 'd'].map(NAME),
    issued: [NAME('b')],
  })
  assert.deepEqual(await states(state), {
    a: 'used',
    b: 'issued',
    c: 'removed',
    d: 'removed',
    e: 'available',
  })
})

test('with a truncated list of issued keys, an unlisted key counts as issued, not as missing', async () => {
  const mine = keys('a', 'b')
  const state = await ledger([mine])
  const found = await state.update((transaction) =>
    alignWithPool(transaction, SIGNED_CURVE25519, poolOf(only(mine, 'b')), { complete: false, now: NOW }),
  )
  assert.deepEqual(found.issued, [NAME('a')])
  assert.deepEqual(found.missing, [])
})

test('a key whose upload is in progress is neither unknown nor missing', async () => {
  const mine = keys('a', 'b')
  const state = await ledger()
  const hashed = await hashKeys(mine)
  await state.update((transaction) => recordUploading(transaction, hashed, NOW))
  const found = await state.update((transaction) =>
    alignWithPool(transaction, SIGNED_CURVE25519, poolOf(only(mine, 'a')), { complete: true, now: NOW }),
  )
  assert.deepEqual(found, { unknown: [], spent: [], missing: [], issued: [] })
  assert.deepEqual(await states(state), { a: 'available', b: 'uploading' })
})

test('a former key keeps what explains it, and loses what only a live key needs', async () => {
  const state = await ledger([keys('a')])
  await state.update((transaction) =>
    moveTo(transaction, ONE_TIME_KEYS, NAME('a'), 'lost', NOW, { detail: 'a test' }),
  )
  const record = await state.read((view): KeyRecord | undefined => view.get(ONE_TIME_KEYS, NAME('a')))
  assert.equal(record?.share, undefined)
  const [explanation] = await explain((look) => state.read(look), NAME('a'))
  assert.match(explanation?.text ?? '', /has been lost since 2023-11-14T22:13:20.000Z: .* \(a test\)\.$/)
})

test('a pool of invented keys displaces no history, and comparing it is fast', async () => {
  const state = await ledger([keys('a')])
  const found = Array.from({ length: 20_000 }, (_, i) => ({ name: NAME(`x${i}`), hash: `hash ${i}`, ts: 1 }))
  const pool = { digest: undefined, available: found, issued: found, fallback: undefined }
  await state.update((transaction) => {
    const options = { complete: true, now: NOW }
    const { unknown } = alignWithPool(transaction, SIGNED_CURVE25519, pool, options)
    assert.equal(unknown.length, found.length)
    recordLost(transaction, found, NOW)
  })
  const left = await state.read((view) => view.all(ONE_TIME_KEYS))
  assert.equal(left.size, MAX_RECORDS)
  assert.ok(left.has(NAME('a')))
})

test("the server's time of issue counts if it is plausible, and the time recorded first stays", async () => {
  const times = async (...told: number[]): Promise<number | undefined> => {
    const mine = keys('a')
    const state = await ledger([mine])
    for (const ts of told) {
      const pool = poolOf({}, mine)
      const issued = pool.issued.map((key) => ({ ...key, ts }))
      await state.update((transaction) => {
        const options = { complete: true, now: NOW + 1_000 }
        return alignWithPool(transaction, SIGNED_CURVE25519, { ...pool, issued }, options)
      })
    }
    return state.read((view) => view.get(ONE_TIME_KEYS, NAME('a'))?.issuedAt)
  }
  assert.equal(await times(NOW + 500), NOW + 500)
  assert.equal(await times(NOW + 500, NOW + 100), NOW + 500)
  for (const wrong of [0, 5_000, NOW - 1, NOW + 9_000, 1e300]) assert.equal(await times(wrong), NOW + 1_000)
})
