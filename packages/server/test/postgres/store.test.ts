/**
 * Behaviour of the PostgreSQL store only: limits of inboxes, the sweep, and concurrent processes. Needs
 * LATCHKEY_TEST_POSTGRES (@latchkey/testing/test-schema.ts).
 */
import type { UploadResult } from '../../src/pool/commands.ts'
import { keyPools } from '@latchkey/testing/key-pools.ts'
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import type { DeviceId, UserId } from '@latchkey/protocol'
import { DEFAULT_CONFIG, postgresConnection, postgresOptions } from '../../src/config/config.ts'
import { REPLAYED_RESETS_PER_DEVICE } from '../../src/pool/reset-replay.ts'
import type { UploadedKey } from '../../src/pool/key.ts'
import { TRANSACTIONS_PER_DEVICE } from '../../src/messages/transaction-memory.ts'
import type { Session } from '../../src/session.ts'
import type { Store } from '../../src/store.ts'
import { Postgres } from '../../src/store/postgres/database.ts'
import { openPostgresStore } from '../../src/store/postgres/index.ts'
import { START, sweepOnce } from '../../src/store/postgres/sweep.ts'
import { claimer, DEVICE, login, makeKey, poolStatus, USER } from '../store-contract/test-device.ts'
import { openTestSchema, skipWithoutPostgres as skip } from '@latchkey/testing/test-schema.ts'
import { NOW, senders, sendMany } from '../support/store-calls.ts'
import { assertInboxFollowsModel, INBOX_BOUNDS } from '../support/inbox-model.ts'

type Opened = AsyncDisposable & { readonly stores: readonly Store[]; readonly db: Postgres }

/** Stores over one new schema, and a connection of the test. */
async function open(count: number, sizes: Partial<typeof DEFAULT_CONFIG.sizes> = {}): Promise<Opened> {
  const schema = await openTestSchema(randomBytes(8).toString('hex'))
  assert.ok(schema)
  const config = {
    ...DEFAULT_CONFIG,
    database: schema.database,
    sizes: { ...DEFAULT_CONFIG.sizes, ...sizes },
  }
  const stores: Store[] = []
  for (let n = 0; n < count; n++)
    stores.push(await openPostgresStore({ ...postgresOptions(config), now: Date.now }))
  const db = new Postgres({ ...postgresConnection(config), connections: 2 })
  return {
    stores,
    db,
    async [Symbol.asyncDispose]() {
      for (const store of stores) await store.close()
      await db.close()
      await schema.drop()
    },
  }
}

async function send(store: Store, session: Session, n: number, to = session): Promise<void> {
  const event = JSON.stringify({ sender: session.userId, type: 'm.test', content: { n, ü: 'ü' } })
  await store.messages.send({
    session,
    transaction: `m.test ${n}`,
    messages: [{ userId: to.userId, deviceId: to.deviceId, event }],
    now: Date.now(),
  })
}

async function waiting(store: Store, session: Session): Promise<number[]> {
  const { toDevice } = await store.sync.read(session, {
    confirms: false,
    everyoneFromBeginning: false,
    page: { toDevicePerSync: 1000, syncPageBytes: 1e9 },
    mayWait: false,
  })
  return toDevice.map((event) => JSON.parse(event).content.n)
}

test('an inbox over its limit loses the oldest of the sender with the most, through either process', {
  skip,
}, async () => {
  for (const bound of INBOX_BOUNDS) {
    await using opened = await open(2, bound)
    const [one] = opened.stores
    assert.ok(one)
    await assertInboxFollowsModel(opened.stores, await login(one, 1), await senders(one), bound, 120)
  }
})

test('two devices that send to each other concurrently, through two processes, lose no message', {
  skip,
}, async () => {
  await using opened = await open(2)
  const [one, two] = opened.stores
  assert.ok(one && two)
  const [a, b] = [await login(one, 1), await login(one, 1, '@bob:test.example' as UserId, 'BOB' as DeviceId)]
  const rounds = Array.from({ length: 40 }, (_, n) => n)
  await Promise.all(rounds.flatMap((n) => [send(one, a, n, b), send(two, b, n, a)]))
  for (const session of [a, b])
    assert.deepEqual(
      (await waiting(two, session)).sort((x, y) => x - y),
      rounds,
    )
})

test('a damaged pool fails its own claims, and no others of the same batch', {
  skip,
}, async () => {
  await using opened = await open(1)
  const [store] = opened.stores
  assert.ok(store)
  const names = ['@alice:test.example', '@bob:test.example', '@carol:test.example'] as UserId[]
  const algorithm = makeKey('signed_curve25519', 'K', 1).algorithm
  for (const [n, userId] of names.entries()) {
    const session = await login(store, 1, userId)
    const oneTimeKeys = [makeKey(algorithm, 'K', n)]
    await keyPools(store).upload({ session, oneTimeKeys, fallbackKeys: [], now: 1 })
  }
  await opened.db.run(
    `update pools set count = 5, head = 2 where device_num =
       (select device_num from devices join users using (user_num) where user_id = $1)`,
    names[1],
  )
  const claims = await Promise.allSettled(
    names.map((userId) =>
      store.pools.claim({
        claimer: claimer('dave'),
        targets: [{ userId, deviceId: DEVICE, algorithm }],
        now: 2,
      }),
    ),
  )
  assert.deepEqual(
    claims.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled'],
  )
})

test('a repeated refused upload commits nothing', { skip }, async () => {
  await using opened = await open(1)
  const [store] = opened.stores
  assert.ok(store)
  const session = await login(store, 1)
  const upload = (material: number): Promise<unknown> => {
    const oneTimeKeys = [makeKey('signed_curve25519', 'K', material)]
    return keyPools(store).upload({ session, oneTimeKeys, fallbackKeys: [], now: 1 })
  }
  await upload(0)
  // The transaction that locked the device's row last.
  const last = async (): Promise<string | undefined> =>
    (
      await opened.db.one<{ status: string }>(
        'select pg_xact_status(xmax::text::xid8) as status from devices where device_num = $1',
        session.deviceRef,
      )
    )?.status
  await assert.rejects(upload(1), { status: 400 })
  assert.equal(await last(), 'committed', 'the first refusal is remembered')
  await assert.rejects(upload(1), { status: 400 })
  assert.equal(await last(), 'aborted')
  await upload(0)
  assert.equal(await last(), 'committed')
})

test('a refused upload or reset uses up no pool number, so that repeats cannot exhaust them', {
  skip,
}, async () => {
  await using opened = await open(1)
  const [store] = opened.stores
  assert.ok(store)
  const session = await login(store, 1)
  const upload = (algorithms: readonly string[], material: number): Promise<unknown> => {
    const oneTimeKeys = algorithms.map((algorithm, n) => makeKey(algorithm, 'K', material + n))
    return keyPools(store).upload({ session, oneTimeKeys, fallbackKeys: [], now: 1 })
  }
  const lastNumber = async (): Promise<number | undefined> =>
    (await opened.db.one<{ num: number }>('select last_value as num from pools_pool_num_seq'))?.num
  await upload(['signed_curve25519'], 0)
  const before = await lastNumber()
  await assert.rejects(upload(['signed_curve25519', 'a', 'b'], 10), { status: 400 })
  await opened.db.run('update devices set day_start_ts = 1, day_stored = 5000')
  await assert.rejects(upload(['a', 'b'], 20), { status: 429 })
  await opened.db.run('update devices set day_stored = 0')
  await opened.db.run(
    `insert into reset_answers (device_num, request_id, ts, answer) select $1, n, 1, '{}' from generate_series(1, $2) as n`,
    session.deviceRef,
    REPLAYED_RESETS_PER_DEVICE,
  )
  const reset = keyPools(store).reset({
    session,
    withdrawal: { all: true },
    oneTimeKeys: [makeKey('a', 'K', 30)],
    fallbackKeys: [],
    requestId: 'one too many',
    now: 2,
  })
  await assert.rejects(reset, { status: 429 })
  assert.equal(await lastNumber(), before)
})

test('the sweep deletes details of removed keys, and removed devices, but remembers each key of a device', {
  skip,
}, async () => {
  await using opened = await open(1)
  const [store] = opened.stores
  assert.ok(store)
  const { db } = opened
  const session = await login(store, 1)
  const algorithm = 'signed_curve25519'
  const keys = [1, 2, 3].map((n) => makeKey(algorithm, `K${n}`, n))
  const upload = (): Promise<UploadResult> =>
    keyPools(store).upload({ session, oneTimeKeys: keys, fallbackKeys: [], now: 1000 })
  await upload()
  const targets = [{ userId: USER, deviceId: DEVICE, algorithm: keys[0]?.algorithm ?? assert.fail() }]
  await store.pools.claim({ claimer: claimer('bob'), targets, now: 1000 })
  const texts = (): Promise<{ seq: number; json: string | null }[]> =>
    db.all(`select seq, json from one_time_keys order by seq`)
  assert.deepEqual(await sweepOnce({ db }, 999, 1000, START), START)
  assert.ok((await texts()).every(({ json }) => json !== null))
  await sweepOnce({ db }, 2000, 2000, START)
  assert.deepEqual(
    (await texts()).map(({ json }) => json !== null),
    [false, true, true],
  )
  assert.equal((await upload()).outcomes.size, 3)
  assert.equal((await poolStatus(store, session)).algorithms[0]?.count, 2, 'an issued key is available again')
  await store.devices.removeAll(session, 3000)
  await sweepOnce({ db }, 4000, 4000, START)
  assert.deepEqual(await texts(), [])
  assert.deepEqual(await db.all(`select 1 from devices union all select 1 from pools`), [])
})

test('keys that leave lose their text at once; issued keys of a removed device lose it with the sweep', {
  skip,
}, async () => {
  await using opened = await open(1)
  const [store] = opened.stores
  assert.ok(store)
  const { db } = opened
  const texts = async (): Promise<unknown> =>
    (await db.one<{ n: number }>(`select count(json) as n from one_time_keys`))?.n
  const algorithm = 'signed_curve25519'
  const keysOf = (from: number, count: number): UploadedKey[] =>
    Array.from({ length: count }, (_, i) => makeKey(algorithm, `K${from + i}`, from + i))
  const session = await login(store, 1)
  await keyPools(store).upload({ session, oneTimeKeys: keysOf(0, 5), fallbackKeys: [], now: 3 })
  const targets = [{ userId: USER, deviceId: DEVICE, algorithm: algorithm as UploadedKey['algorithm'] }]
  await store.pools.claim({ claimer: claimer('bob'), targets, now: 5 })
  const withdrawal = { all: false, names: [`${algorithm}:K1` as never] } as const
  await keyPools(store).reset({ session, withdrawal, oneTimeKeys: [], fallbackKeys: [], now: 4 })
  assert.equal(await texts(), 4, 'a withdrawn key has none, an issued one has')
  const small = { ...DEFAULT_CONFIG.pools, keysPerPool: 3 }
  const more = { session, oneTimeKeys: keysOf(6, 1), fallbackKeys: [], now: 4 }
  assert.equal((await keyPools(store, small).upload(more)).evicted.length, 1)
  assert.equal(await texts(), 4, 'an evicted key has none')
  await store.devices.removeAll(session, 50)
  assert.equal(await texts(), 1, 'a purged key has none')
  await sweepOnce({ db }, 2, 51, START)
  assert.equal(await texts(), 0)
  const issues = await db.one<{ n: number }>(`select count(*) as n from issues`)
  assert.equal(issues?.n, 1, 'the claimer stays for the retention')
})

test('a name that is awaited while its account is created becomes tracked', { skip }, async () => {
  await using opened = await open(2)
  const [one, two] = opened.stores
  assert.ok(one && two)
  const session = await login(one, 1)
  const names = Array.from({ length: 20 }, (_, n) => `@new${n}:test.example` as UserId)
  await Promise.all(
    names.flatMap((userId) => [
      one.devices.track(session, [userId]),
      two.accounts.create({ userId, passwordHash: '', now: 1 }),
    ]),
  )
  const tracked = await opened.db.all(`select 1 from tracked_users`)
  const awaited = await opened.db.all(`select 1 from awaited_users`)
  assert.deepEqual([tracked.length, awaited.length], [names.length, 0])
})

test('a device with more transactions than it may have forgets the oldest', { skip }, async () => {
  await using opened = await open(1)
  const [store] = opened.stores
  assert.ok(store)
  const session = await login(store, 1)
  await opened.db.run(
    `insert into sent_transactions (device_num, transaction_id, ts)
     select $1, 'old ' || n, $3::bigint - 100000 + n from generate_series(1, $2::int) as n`,
    session.deviceRef,
    TRANSACTIONS_PER_DEVICE + 500,
    NOW,
  )
  await sendMany(store, session, 1_000)
  const kept = await opened.db.one(
    `select count(*)::int as n, (min(ts) - $1::bigint)::int as oldest from sent_transactions`,
    NOW - 100_000,
  )
  assert.deepEqual(kept, { n: TRANSACTIONS_PER_DEVICE, oldest: 1_501 })
})
