/**
 * Several stores over one database, as several processes open it: the guarantees hold across them (key-pool.md "Once",
 * "Order", "No false miss"), and a change in one wakes waiters in another.
 */
import { keyPools } from '@latchkey/testing/key-pools.ts'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SIGNED_CURVE25519 } from '@latchkey/protocol'
import pg from 'pg'
import { within } from '@latchkey/testing/within.ts'
import { DEFAULT_POOL_POLICY, type PoolPolicy } from '../../src/pool/policy.ts'
import type { ClaimedKey } from '../../src/pool/commands.ts'
import type { UploadedKey } from '../../src/pool/key.ts'
import type { DeviceRef } from '../../src/session.ts'
import type { Store } from '../../src/store.ts'
import type { TestSchema } from '@latchkey/testing/test-schema.ts'
import { freshSchema, openProxied, type ProxiedStore } from './postgres-store.ts'
import { claimer, DEVICE, login, makeKey, poolStatus, USER } from './test-device.ts'

const CLAIMERS_PER_STORE = 100

export function testSeveralStores(): void {
  test('200 claimers through two stores get each key once, in order, and a key while one is left', () =>
    withStores(2, async ([one, two]) => {
      const session = await login(one.store, 0)
      const keys = uploadOf(150)
      await keyPools(one.store).upload({ session, oneTimeKeys: keys, fallbackKeys: [FALLBACK], now: 1 })
      const answers = await Promise.all(
        Array.from({ length: 2 * CLAIMERS_PER_STORE }, (_, n) =>
          claim(n % 2 === 0 ? one.store : two.store, n),
        ),
      )
      const issued = answers.filter((key) => key?.fallback === false).map(idOf)
      assert.deepEqual(
        issued.toSorted(),
        keys.map((key) => key.keyId as string),
      )
      assert.equal(answers.filter((key) => key?.fallback === true).length, 50)
      const status = await poolStatus(two.store, session)
      assert.equal(status.algorithms[0]?.count, 0)
      assert.deepEqual(status, await poolStatus(one.store, session))
    }))

  test('sequential claims through two stores follow the upload order while others upload', () =>
    withStores(2, async ([one, two]) => {
      const session = await login(one.store, 0)
      const keys = uploadOf(60)
      const claimed: (string | undefined)[] = []
      await keyPools(one.store).upload({ session, oneTimeKeys: keys.slice(0, 20), fallbackKeys: [], now: 1 })
      const uploads = (async () => {
        for (const [i, from] of [20, 30, 40, 50].entries()) {
          const { store } = i % 2 === 0 ? two : one
          const oneTimeKeys = keys.slice(from, from + 10)
          await keyPools(store).upload({ session, oneTimeKeys, fallbackKeys: [], now: 2 })
        }
      })()
      for (let n = 0; n < 20; n++) claimed.push(idOf(await claim(n % 2 === 0 ? one.store : two.store, n)))
      await uploads
      for (let n = 20; n < 60; n++) claimed.push(idOf(await claim(n % 2 === 0 ? one.store : two.store, n)))
      assert.deepEqual(
        claimed,
        keys.map((key) => key.keyId as string),
      )
    }))

  test('no claim misses a key that the other store has acknowledged', () =>
    withStores(2, async ([one, two]) => {
      const session = await login(one.store, 0)
      const keys = uploadOf(200)
      const claims: Promise<ClaimedKey | undefined>[] = []
      for (let from = 0; from < keys.length; from += 10) {
        const oneTimeKeys = keys.slice(from, from + 10)
        await keyPools(one.store).upload({ session, oneTimeKeys, fallbackKeys: [], now: 1 })
        for (let n = from; n < from + 10; n++) claims.push(claim(n % 2 === 0 ? two.store : one.store, n))
      }
      const issued = (await Promise.all(claims)).map(idOf)
      assert.deepEqual(
        issued.toSorted(),
        keys.map((key) => key.keyId as string),
      )
    }))

  test('a session ended through one store writes nothing through another', () =>
    withStores(2, async ([one, two]) => {
      const session = await login(one.store, 0)
      assert.deepEqual(await two.store.accounts.session(session.tokenHash), session)
      await one.store.devices.remove(session, [DEVICE], 1)
      assert.equal(await two.store.accounts.session(session.tokenHash), undefined)
      const upload = keyPools(two.store).upload({
        session,
        oneTimeKeys: uploadOf(1),
        fallbackKeys: [],
        now: 2,
      })
      await assert.rejects(upload, { status: 401 })
    }))

  test('under heal the second try of a client that lost its keys counts in any store', () =>
    withStores(
      2,
      async ([one, two]) => {
        const session = await login(one.store, 0)
        const first = makeKey(SIGNED_CURVE25519, 'A', 1)
        const other = makeKey(SIGNED_CURVE25519, 'A', 2)
        await keyPools(one.store, HEALING).upload({ session, oneTimeKeys: [first], fallbackKeys: [], now: 1 })
        const again = { session, oneTimeKeys: [other], fallbackKeys: [], now: 10_000 }
        await assert.rejects(keyPools(one.store, HEALING).upload(again), { status: 400 })
        const { purged } = await keyPools(two.store, HEALING).upload({ ...again, now: 13_000 })
        assert.equal(purged, 'conflict_healed')
      },
      HEALING,
    ))

  test('a claim through one store wakes a listener of another', () =>
    withStores(2, async ([one, two]) => {
      const session = await login(one.store, 0)
      await keyPools(one.store).upload({ session, oneTimeKeys: uploadOf(1), fallbackKeys: [], now: 1 })
      const woken = wakeOf(two.store, session.deviceRef)
      await claim(one.store, 0)
      await within('the wake', woken)
    }))

  test('wakes are sent and received by notification; the poll is only for lost ones', () =>
    withStores(1, async ([{ store }], schema) => {
      const session = await login(store, 0)
      await keyPools(store).upload({ session, oneTimeKeys: uploadOf(1), fallbackKeys: [], now: 1 })
      await withClient(schema, async (client) => {
        const { rows } = await client.query<{ channel: string }>(
          `select 'latchkey_' || current_schema() as channel`,
        )
        const channel = rows[0]?.channel ?? ''
        await client.query(`listen ${client.escapeIdentifier(channel)}`)
        const { promise: notified, resolve: notify } = Promise.withResolvers<string | undefined>()
        client.once('notification', ({ payload }) => notify(payload))
        await claim(store, 0)
        const payload = JSON.parse((await within('the notification', notified)) ?? '') as unknown[]
        assert.deepEqual(payload.slice(0, 2), [[session.deviceRef], []])
        const unused = 1_000_000 as DeviceRef
        const woken = wakeOf(store, unused)
        await client.query('select pg_notify($1, $2)', [channel, JSON.stringify([[unused], []])])
        await within('the wake', woken)
      })
    }))

  test('a commit wakes the syncs of a device once on each process, and the poll does not repeat it', () =>
    withStores(2, async (stores, schema) => {
      const [{ store: first }] = stores
      const session = await login(first, 0)
      await keyPools(first).upload({ session, oneTimeKeys: uploadOf(1), fallbackKeys: [], now: 1 })
      const unused = 1_000_000 as DeviceRef
      const woken: number[] = []
      const polled = stores.map(({ store }, n) => {
        store.sync.subscribe({
          device: (ref) => ref === session.deviceRef && woken.push(n),
          users: () => {},
          everyone: () => {},
        })
        return wakeOf(store, unused)
      })
      const wakes = stores.map(({ store }) => wakeOf(store, session.deviceRef))
      await claim(first, 0)
      await within('the wakes', Promise.all(wakes))
      // A row without a notification: the poll reads it after the row of the claim.
      await withClient(schema, (client) =>
        client.query(
          `with ended as (update stream set pos = pos + 1 returning pos)
           insert into wakes (pos, ts, devices, users) select pos, 9999999999999, $1, '{}' from ended`,
          [[unused]],
        ),
      )
      await within('the polls', Promise.all(polled))
      assert.deepEqual(woken.toSorted(), [0, 1])
    }))

  test('a claim wakes a listener of another store whose LISTEN connection was cut, and after it is back', () =>
    withStores(2, async ([one, two], schema) => {
      const session = await login(one.store, 0)
      await keyPools(one.store).upload({ session, oneTimeKeys: uploadOf(1), fallbackKeys: [], now: 1 })
      const woken = wakeOf(two.store, session.deviceRef)
      const listeners = await listenersOf(schema)
      two.proxy.cut()
      await claim(one.store, 0)
      await within('the wake', woken)
      await within('a new listener', newListener(schema, listeners))
      await keyPools(one.store).upload({
        session,
        oneTimeKeys: [makeKey(SIGNED_CURVE25519, 'B', 2)],
        fallbackKeys: [],
        now: 2,
      })
      const wokenAgain = wakeOf(two.store, session.deviceRef)
      await claim(one.store, 1)
      await within('the wake', wokenAgain)
    }))

  test('stores that open an empty database at the same time set it up once', async () => {
    const schema = await freshSchema()
    const opened = await Promise.allSettled(
      Array.from({ length: 4 }, () => openProxied(schema, DEFAULT_POOL_POLICY)),
    )
    const stores = opened.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
    try {
      assert.equal(stores.length, 4)
      assert.equal(new Set(stores.map(({ store }) => store.sync.tokenSecret)).size, 1)
    } finally {
      for (const { close } of stores) await close()
      await schema.drop()
    }
  })

  test('a schema newer than this program knows is refused with a clear message', () =>
    withStores(1, async (_stores, schema) => {
      await query(schema, `update meta set value = '1000' where key = 'schema'`)
      await assert.rejects(openProxied(schema, DEFAULT_POOL_POLICY), {
        name: 'StoreError',
        message: /The database has schema 1000, this Latchkey knows up to \d+\. Use the newer Latchkey/,
      })
    }))
}

const HEALING: PoolPolicy = { ...DEFAULT_POOL_POLICY, onConflict: 'heal' }
const FALLBACK = makeKey(SIGNED_CURVE25519, 'FALLBACK', 100_000)

type Stores<N extends 1 | 2> = N extends 1 ? readonly [ProxiedStore] : readonly [ProxiedStore, ProxiedStore]

async function withStores<N extends 1 | 2>(
  count: N,
  run: (stores: Stores<N>, schema: TestSchema) => Promise<void>,
  policy = DEFAULT_POOL_POLICY,
): Promise<void> {
  const schema = await freshSchema()
  const stores: ProxiedStore[] = []
  try {
    for (let n = 0; n < count; n++) stores.push(await openProxied(schema, policy))
    await run(stores as unknown as Stores<N>, schema)
  } finally {
    for (const { close } of stores) await close()
    await schema.drop()
  }
}

function uploadOf(count: number): UploadedKey[] {
  return Array.from({ length: count }, (_, i) =>
    makeKey(SIGNED_CURVE25519, `K${String(i).padStart(4, '0')}`, i),
  )
}

async function claim(store: Store, n: number): Promise<ClaimedKey | undefined> {
  const targets = [{ userId: USER, deviceId: DEVICE, algorithm: SIGNED_CURVE25519 }]
  return (await store.pools.claim({ claimer: claimer(`claimer${n}`), targets, now: 3 }))[0] ?? undefined
}

function idOf(key: ClaimedKey | undefined): string | undefined {
  return key?.keyId
}

/** The server process IDs of the connections that listen for stores. */
async function listenersOf(schema: TestSchema): Promise<readonly number[]> {
  const rows = await query<{ pid: number }>(
    schema,
    `select pid from pg_stat_activity where query = 'listen "latchkey_' || current_schema() || '"'`,
  )
  return rows.map(({ pid }) => pid)
}

async function newListener(schema: TestSchema, before: readonly number[]): Promise<void> {
  while ((await listenersOf(schema)).every((pid) => before.includes(pid)));
}

async function query<T extends object>(schema: TestSchema, sql: string): Promise<T[]> {
  return withClient(schema, async (client) => (await client.query<T>(sql)).rows)
}

async function withClient<T>({ database }: TestSchema, run: (client: pg.Client) => Promise<T>): Promise<T> {
  const url = new URL(database)
  const schema = url.searchParams.get('schema')
  url.searchParams.delete('schema')
  const client = new pg.Client({ connectionString: url.href, options: `-c search_path=${schema}` })
  await client.connect()
  try {
    return await run(client)
  } finally {
    await client.end()
  }
}

/** Resolves when a device is woken in a store. */
function wakeOf(store: Store, device: DeviceRef): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const unsubscribe = store.sync.subscribe({
    device: (ref) => ref === device && resolve(),
    users: () => {},
    everyone: () => {},
  })
  return promise.finally(unsubscribe)
}
