/**
 * Clocks and the wait for other processes (fence/verification.ts, issue 11 A2): the clock of no process, and no step of
 * the database's clock, lets a process issue keys that another one issued and lost. Needs LATCHKEY_TEST_POSTGRES.
 */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { executes } from '@latchkey/testing/postgres-messages.ts'
import { TcpProxy } from '@latchkey/testing/tcp-proxy.ts'
import { ANSWER_WITHIN_MS, VERIFY_ROUNDS } from '../../src/fence/verification.ts'
import { MatrixError } from '../../src/matrix-error.ts'
import { Fence } from '../../src/store/postgres/fence.ts'
import { Witness } from '../../src/store/witness.ts'
import { login } from '../store-contract/test-device.ts'
import { RewindableDatabase, skip } from '../support/rewindable-database.ts'
import { claim, claims, FALLBACK, keys, kindsOf, NOW, upload } from '../support/store-calls.ts'

const MINUTE_MS = 60_000
const asks = executes(/as waits/)

/** A store behind a proxy that counts how often it asks whether all processes have verified. */
async function openCounting(
  database: RewindableDatabase,
  directory?: string,
): Promise<{
  readonly store: Awaited<ReturnType<RewindableDatabase['open']>>['store']
  readonly asked: () => number
  /** Resolves when it has asked this often. */
  readonly hasAsked: (times: number) => Promise<unknown>
  readonly proxy: TcpProxy
}> {
  const proxy = await TcpProxy.before(new URL(database.url))
  let asked = 0
  // Never matches, so that it sees every message.
  void proxy.catch((message) => {
    if (asks(message)) asked++
    return false
  }, 'sent')
  const { store } = await database.open(directory, () => NOW, proxy.through(database.url))
  const hasAsked = async (times: number): Promise<void> => {
    const reached = proxy.catch((message) => asks(message) && asked >= times, 'sent')
    if (asked < times) (await reached).pass()
  }
  return { store, asked: () => asked, hasAsked, proxy }
}

/** Puts a clock in the place of the database's; `shift` is added to the real time, and may be volatile. */
async function shiftDatabaseClock(database: RewindableDatabase, shift: string): Promise<void> {
  await database.query(
    `create or replace function public.clock_timestamp() returns timestamptz volatile language sql
       as $$ select pg_catalog.clock_timestamp() + ${shift} $$`,
  )
  await database.query(`alter database ${database.name} set search_path = public, pg_catalog`)
}

suite('the first claim after a restore waits until the process that lost writes has verified', {
  skip,
}, () => {
  for (const [name, clock, shift] of [
    ['all clocks are right', NOW, undefined],
    ['a third process is 11 minutes ahead', NOW + 11 * MINUTE_MS, undefined],
    ['a third process is 11 minutes behind', NOW - 11 * MINUTE_MS, undefined],
    ['a third process wrote in the year 2099 once', Date.UTC(2099, 0), undefined],
    ['a third process wrote in the year 1970', 0, undefined],
    ["the database's clock is a day ahead", NOW, `interval '1 day'`],
    ["the database's clock is a day behind", NOW, `interval '-1 day'`],
    ["the database's clock jumps at every look", NOW, `(random() - 0.5) * interval '1 day'`],
  ] as const) {
    test(name, async () => {
      await using database = await RewindableDatabase.create()
      const [a, b, c] = [database.newDirectory(), database.newDirectory(), database.newDirectory()]
      const setUp = [await database.open(a), await database.open(b), await database.open(c, () => clock)]
      const [first, second, third] = setUp.map(({ store }) => store)
      assert.ok(first && second && third)
      const session = await login(first, NOW)
      await upload(first, session, keys(0, 10))
      await upload(second, session, keys(10, 11))
      // The last write before the backup is that of the wrong clock.
      await upload(third, session, keys(11, 12))
      for (const { store } of setUp) await store.close()
      await database.backUp()
      const lost = await database.open(b)
      assert.deepEqual(await claims(lost.store, 2), ['K0000', 'K0001'])
      await lost.store.close()
      await database.restore()
      if (shift !== undefined) await shiftDatabaseClock(database, shift)

      const waiting = await openCounting(database, a)
      const claimed = claims(waiting.store, 2)
      const early = claimed.then((issued) => assert.fail(`${issued} were issued too early`))
      await Promise.race([waiting.hasAsked(3), early])
      early.catch(() => {})
      const raising = await database.open(b)
      assert.deepEqual(kindsOf(raising.events), ['raised'])
      await database.open(c)
      assert.deepEqual(await claimed, [undefined, undefined])
      await waiting.proxy.close()
    })
  }
})

test('a process that does not return is waited for in a bounded number of rounds, and not again at the next start', {
  skip,
}, async () => {
  await using database = await RewindableDatabase.create()
  const [a, gone] = [await database.open(), await database.open()]
  const session = await login(a.store, NOW)
  await upload(a.store, session, keys(0, 10))
  await upload(gone.store, session, keys(10, 11))
  await gone.store.close()
  await a.store.close()
  const directory = database.directories[0]
  // As a restore into the same server: the table has another file.
  await database.query(`vacuum full stream`)
  const first = await openCounting(database, directory)
  assert.equal(await claim(first.store), 'K0000')
  assert.ok(first.asked() >= VERIFY_ROUNDS, `${first.asked()} rounds`)
  assert.ok(first.asked() <= VERIFY_ROUNDS + 5, `${first.asked()} rounds`)
  await first.store.close()
  await first.proxy.close()

  await database.query(`vacuum full stream`)
  const second = await openCounting(database, directory)
  assert.equal(await claim(second.store), 'K0001')
  assert.ok(second.asked() <= 5, `${second.asked()} rounds`)
  await second.store.close()
  await second.proxy.close()

  // It returns, and is waited for again.
  const back = await database.open(database.directories[1])
  assert.equal(await claim(back.store), 'K0002')
  await back.store.close()
  assert.deepEqual(await database.query(`select count(*)::int as absent from looks where absent`), [
    { absent: 0 },
  ])
})

test('a restore of seconds keeps fallback keys, however long ago the server was started', {
  skip,
}, async () => {
  for (const writtenTs of ['null', '0']) {
    await using database = await RewindableDatabase.create()
    const directory = database.newDirectory()
    const before = await database.open(directory)
    const session = await login(before.store, NOW)
    await upload(before.store, session, keys(0, 5), [FALLBACK])
    await database.query(`update stream set server_start_written_ts = ${writtenTs}`)
    await before.store.close()
    await database.backUp()
    const lost = await database.open(directory)
    await claims(lost.store, 2)
    await lost.store.close()
    await database.restore()
    const after = await database.open(directory)
    const [event] = after.events
    assert.equal(event?.kind === 'raised' && event.droppedFallbackKeys, false)
    assert.equal(await claim(after.store), 'FALLBACK')
  }
})

test('a process that was stopped between a commit and its answer does not answer', { skip }, async () => {
  await using database = await RewindableDatabase.create()
  const witness = Witness.open({ directory: database.newDirectory(), database: 'test' })
  const ignored = (): void => {}
  const fence = new Fence({
    connections: 1,
    witness,
    otherWitnesses: () => [],
    onFence: ignored,
    onNewEpoch: ignored,
    forget: ignored,
  })
  const now = performance.now()
  await fence.acknowledge(0, { n: 1, epoch: 'e' }, now)
  await assert.rejects(
    fence.acknowledge(0, { n: 2, epoch: 'e' }, now - ANSWER_WITHIN_MS),
    (error: unknown) => error instanceof MatrixError && error.status === 503,
  )
  witness.close()
})
