/**
 * The rollback fence over PostgreSQL with several processes, many devices or a standby: no process issues a key that
 * another one had issued, and the work after a raise ends. Needs LATCHKEY_TEST_POSTGRES.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type DeviceId, SIGNED_CURVE25519 } from '@latchkey/protocol'
import { DEFAULT_CONFIG, postgresOptions } from '../../src/config/config.ts'
import type { Session } from '../../src/session.ts'
import { openPostgresStore, raisePostgresFence } from '../../src/store/postgres/index.ts'
import { claimer, DEVICE, login, USER } from '../store-contract/test-device.ts'
import { eventually } from '@latchkey/testing/metrics.ts'
import { startPostgresCluster } from '@latchkey/testing/postgres-cluster.ts'
import { executes } from '@latchkey/testing/postgres-messages.ts'
import { startReplica } from '@latchkey/testing/postgres-replica.ts'
import { RewindableDatabase, skip } from '../support/rewindable-database.ts'
import {
  claim,
  claims,
  DAY_MS,
  FALLBACK,
  keys,
  kindsOf,
  NOW,
  send,
  sync,
  tokenOf,
  untilServed,
  upload,
} from '../support/store-calls.ts'
import { TcpProxy } from '@latchkey/testing/tcp-proxy.ts'

/** A backup after one process stored ten keys and another one issued one of them. Both are closed. */
async function backUpOfTwo(
  database: RewindableDatabase,
  directories: readonly [string, string] = [database.newDirectory(), database.newDirectory()],
): Promise<{ readonly directories: readonly [string, string]; readonly session: Session }> {
  const [one, two] = [await database.open(directories[0]), await database.open(directories[1])]
  const session = await login(one.store, NOW)
  await upload(one.store, session, keys(0, 10))
  await claims(two.store, 1)
  for (const { store } of [one, two]) await store.close()
  await database.backUp()
  return { directories, session }
}

test('of two processes with one directory, the one that lost nothing raises the fence for the other', {
  skip,
}, async () => {
  await using database = await RewindableDatabase.create()
  const directory = database.newDirectory()
  await backUpOfTwo(database, [directory, directory])
  const [one, two] = [await database.open(directory), await database.open(directory)]
  assert.deepEqual(await claims(two.store, 3), ['K0001', 'K0002', 'K0003'])
  await one.store.close()
  await two.store.close()
  await database.restore()

  const first = await database.open(directory)
  assert.deepEqual(kindsOf(first.events), ['raised'])
  assert.deepEqual(await claims(first.store, 3), [undefined, undefined, undefined])
  const second = await database.open(directory)
  assert.deepEqual(second.events, [{ kind: 'stands', number: 1 }])
})

test('with separate directories, the process that lost nothing issues no key before the other has verified', {
  skip,
}, async () => {
  for (const end of ['closed', 'left open'] as const) {
    await using database = await RewindableDatabase.create()
    const { directories } = await backUpOfTwo(database)
    const one = await database.open(directories[0])
    const two = await database.open(directories[1])
    await claims(two.store, 3)
    await one.store.close()
    if (end === 'closed') await two.store.close()
    await database.restore()

    const first = await database.open(directories[0])
    assert.deepEqual(kindsOf(first.events), ['stands'])
    const claimed = claims(first.store, 2)
    // The closed process verifies when it starts, the open one when its connections are cut.
    const second = end === 'closed' ? await database.open(directories[1]) : two
    assert.deepEqual(await claimed, [undefined, undefined])
    assert.equal(kindsOf(second.events).at(-1), 'raised')
  }
})

test('a process that returns from a copy without lost writes waits for those that wrote to the copy', {
  skip,
}, async () => {
  for (const restarts of [false, true]) {
    await using database = await RewindableDatabase.create()
    const { directories } = await backUpOfTwo(database)
    const one = await database.open(directories[0])
    const two = await database.open(directories[1])
    await database.exchange()
    // Waits until the first process has verified the copy.
    const lost = await untilServed(() => claims(two.store, 3))
    assert.deepEqual(lost, ['K0001', 'K0002', 'K0003'])
    await two.store.close()
    if (restarts) await one.store.close()
    await database.exchange()

    const first = restarts ? await database.open(directories[0]) : one
    const claimed = untilServed(() => claims(first.store, 2))
    const second = await database.open(directories[1])
    assert.deepEqual(await claimed, [undefined, undefined])
    assert.equal(kindsOf(second.events).at(-1), 'raised')
  }
})

test('after an upload to an old backup, recent writers are still those before the backup', {
  skip,
}, async () => {
  await using database = await RewindableDatabase.create()
  const { directories, session } = await backUpOfTwo(database)
  const two = await database.open(directories[1])
  await claims(two.store, 3)
  await two.store.close()
  await database.restore()

  const muchLater = (): number => NOW + 30 * DAY_MS
  const first = await database.open(directories[0], muchLater)
  await upload(first.store, session, keys(10, 12))
  const claimed = claims(first.store, 2)
  const second = await database.open(directories[1], muchLater)
  assert.deepEqual(await claimed, [undefined, undefined])
  assert.equal(kindsOf(second.events).at(-1), 'raised')
})

test('a process counts as verified after it has raised the fence, not before', {
  skip,
}, async () => {
  await using database = await RewindableDatabase.create()
  const { directories } = await backUpOfTwo(database)
  const lost = await database.open(directories[1])
  await claims(lost.store, 3)
  await lost.store.close()
  await database.restore()

  const [proxyOfOne, proxyOfTwo] = [
    await TcpProxy.before(new URL(database.url)),
    await TcpProxy.before(new URL(database.url)),
  ]
  try {
    const raises = proxyOfTwo.catch(executes(/lock table writers in exclusive/i), 'sent')
    const two = database.open(directories[1], () => NOW, proxyOfTwo.through(database.url))
    const caught = await raises
    const one = await database.open(directories[0], () => NOW, proxyOfOne.through(database.url))
    let asked = 0
    const asks = executes(/as waits/)
    const asksAgain = proxyOfOne.catch((message) => asks(message) && ++asked === 3, 'sent')
    const claimed = claim(one.store)
    const issuedEarly = claimed.then((key) => Promise.reject(new Error(`${key} was issued too early`)))
    ;(await Promise.race([asksAgain, issuedEarly])).pass()
    issuedEarly.catch(() => {})
    caught.pass()
    assert.equal((await two).events.at(-1)?.kind, 'raised')
    assert.equal(await claimed, undefined)
  } finally {
    await proxyOfOne.close()
    await proxyOfTwo.close()
  }
})

test('after a raise, one claim for many devices ends and finds all of them purged', {
  skip,
}, async () => {
  const devices = 1_500
  await using database = await RewindableDatabase.create()
  const { store } = await database.open()
  const session = await login(store, NOW)
  await upload(store, session, keys(0, 10), [FALLBACK])
  await database.query(`
    insert into devices (user_num, device_id, created_ts, fence)
      select user_num, 'D' || n, 0, 0 from users, generate_series(1, ${devices}) n;
    insert into pools (device_num, algorithm, last_seq, count, told, fallback_key_id, fallback_json, fallback_material)
      select many.device_num, algorithm, last_seq, count, told, fallback_key_id, fallback_json, fallback_material
      from pools cross join (select device_num from devices where device_id like 'D%') as many;
    insert into one_time_keys (pool_num, seq, uploaded_ts, key_id, material, json)
      select pools.pool_num, seq, uploaded_ts, key_id, material, json from pools
      cross join one_time_keys where pools.pool_num <> one_time_keys.pool_num`)
  const targets = Array.from({ length: devices }, (_, n) => ({
    userId: USER,
    deviceId: `D${n + 1}` as DeviceId,
    algorithm: SIGNED_CURVE25519,
  }))
  const claimAll = async (): Promise<Set<string | undefined>> => {
    const found = await store.pools.claim({ claimer: claimer('bob'), targets, now: NOW })
    assert.equal(found.length, devices)
    return new Set(found.map((key) => key?.keyId))
  }
  assert.deepEqual(await claimAll(), new Set(['K0000']))
  const options = { url: database.url, connections: 1 }
  await raisePostgresFence(options, { reason: 'a test', dropFallbackKeys: false, now: NOW })
  assert.deepEqual(await claimAll(), new Set(['FALLBACK']))
  const stale = await database.query<{ device_id: string }>(
    `select device_id from devices where fence < (select fence from stream)`,
  )
  assert.deepEqual(stale, [{ device_id: DEVICE }])
})

test('the lost time is counted from the last write before the server start, not from later writes', {
  skip,
}, async () => {
  for (const days of [1, 30]) {
    await using database = await RewindableDatabase.create()
    const before = await database.open()
    const session = await login(before.store, NOW)
    await upload(before.store, session, keys(0, 10), [FALLBACK])
    await before.store.close()
    await database.query(`update writers set ts = ts - ${days * DAY_MS} where ts > 0`)
    await database.backUp()
    const lost = await database.open()
    for (let n = 0; n < 5; n++) await send(lost.store, session, n)
    const token = tokenOf(await sync(lost.store, session))
    await lost.store.close()
    await database.restore()

    const after = await database.open()
    assert.equal(await claim(after.store), 'K0000')
    await sync(after.store, session, token)
    const raised = after.events.at(-1)
    assert.equal(raised?.kind === 'raised' && raised.droppedFallbackKeys, days === 30)
    assert.equal(await claim(after.store), days === 30 ? undefined : 'FALLBACK')
  }
})

test('one sweep deletes all wakes past their retention', { skip }, async () => {
  await using database = await RewindableDatabase.create()
  let now = NOW
  await database.open(database.newDirectory(), () => now)
  await database.query(`insert into wakes select n, 0, '{1}', '{}' from generate_series(1, 30000) n`)
  // The clock moves once, so there is one sweep.
  now += 60_000
  await eventually(async () => (await database.query(`select 1 from wakes limit 1`)).length === 0)
})

test('while the address leads to a standby, the number of sessions on it does not grow', {
  skip,
}, async () => {
  await using cluster = await startPostgresCluster({ settings: { wal_keep_size: '256MB' } })
  await using replica = await startReplica(cluster)
  const proxy = await TcpProxy.before(new URL(cluster.url))
  const directory = mkdtempSync(join(tmpdir(), 'latchkey-fence-'))
  const store = await openPostgresStore({
    ...postgresOptions({ ...DEFAULT_CONFIG, database: proxy.through(cluster.url), databaseConnections: 2 }),
    fence: { directory },
    now: Date.now,
  })
  try {
    await replica.caughtUp()
    let tries = 0
    const isListen = executes(/^listen\b/i)
    const triedOften = proxy.catch((message) => isListen(message) && ++tries === 6, 'sent')
    proxy.moveTo(new URL(replica.cluster.url))
    const caught = await triedOften
    // The connection that is being tried, and requests that are about to be refused.
    await eventually(async () => {
      const [row] = await replica.cluster.query<{ n: number }>(
        `select count(*)::int as n from pg_stat_activity where application_name = 'latchkey'`,
      )
      return row !== undefined && row.n <= 2
    })
    caught.pass()
    await replica.promote()
    const session = await login(store, NOW)
    await upload(store, session, keys(0, 1))
    assert.equal(await claim(store), 'K0000')
  } finally {
    await store.close()
    await proxy.close()
    rmSync(directory, { recursive: true, force: true })
  }
})
