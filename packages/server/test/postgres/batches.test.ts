/**
 * Requests that share a statement or a transaction on PostgreSQL (store/postgres/batches.ts) behave as if each ran
 * alone. Needs LATCHKEY_TEST_POSTGRES (@latchkey/testing/test-schema.ts).
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import type { DeviceId, UserId } from '@latchkey/protocol'
import { DEFAULT_CONFIG, postgresOptions } from '../../src/config/config.ts'
import type { Session } from '../../src/session.ts'
import type { Store } from '../../src/store.ts'
import { openPostgresStore } from '../../src/store/postgres/index.ts'
import type { SyncToken } from '../../src/sync/token.ts'
import { login } from '../store-contract/test-device.ts'
import { sync, tokenOf } from '../support/store-calls.ts'
import { openTestSchema, skipWithoutPostgres as skip } from '@latchkey/testing/test-schema.ts'

const SENDERS = 40

/** Two stores over one new schema. */
async function open(): Promise<AsyncDisposable & { readonly one: Store; readonly two: Store }> {
  const schema = await openTestSchema(randomBytes(8).toString('hex'))
  assert.ok(schema)
  const options = {
    ...postgresOptions({ ...DEFAULT_CONFIG, database: schema.database }),
    fence: { directory: schema.witnesses },
    now: Date.now,
  }
  const [one, two] = [await openPostgresStore(options), await openPostgresStore(options)]
  return {
    one,
    two,
    async [Symbol.asyncDispose]() {
      await one.close()
      await two.close()
      await schema.drop()
    },
  }
}

async function loginMany(store: Store, count: number): Promise<Session[]> {
  const sessions: Session[] = []
  for (let n = 0; n < count; n++) sessions.push(await login(store, 1, `@user${n}:test.example` as UserId))
  return sessions
}

type Sent = {
  readonly id?: string
  readonly n: number
  readonly text?: string
  readonly everyDevice?: boolean
}

async function send(
  store: Store,
  session: Session,
  to: Session,
  { n, id = `${n}`, text = JSON.stringify({ n }), everyDevice = false }: Sent,
): Promise<void> {
  await store.messages.send({
    session,
    transaction: `m.test ${id}`,
    messages: [{ userId: to.userId, ...(!everyDevice && { deviceId: to.deviceId }), event: text }],
    now: Date.now(),
  })
}

async function received(store: Store, session: Session): Promise<number[]> {
  const { toDevice } = await store.sync.read(session, {
    confirms: false,
    everyoneFromBeginning: false,
    page: { toDevicePerSync: 1000, syncPageBytes: 1e9 },
    mayWait: false,
  })
  return toDevice.map((event) => (JSON.parse(event) as { n: number }).n)
}

function statuses(results: readonly PromiseSettledResult<unknown>[]): unknown[] {
  return results.map((result) =>
    result.status === 'fulfilled'
      ? 'ok'
      : ((result.reason as { readonly status?: number }).status ?? 'fault'),
  )
}

test('among many concurrent messages, one of an ended session and one that cannot be stored fail alone', {
  skip,
}, async () => {
  await using opened = await open()
  const { one, two } = opened
  const senders = await loginMany(one, SENDERS)
  const to = await login(one, 1)
  await two.devices.removeAll(senders[5] ?? assert.fail(), 2)
  const results = await Promise.allSettled(
    senders.map((session, n) => send(one, session, to, { n, ...(n === 8 && { text: '"\0"' }) })),
  )
  const bad = new Map<number, unknown>([
    [5, 401],
    [8, 'fault'],
  ])
  assert.deepEqual(
    statuses(results),
    senders.map((_, n) => bad.get(n) ?? 'ok'),
  )
  assert.deepEqual(
    (await received(two, to)).sort((a, b) => a - b),
    senders.map((_, n) => n).filter((n) => !bad.has(n)),
  )
  // The failed transaction left nothing behind: the same ID with a valid message is carried out.
  await send(two, senders[8] ?? assert.fail(), to, { n: 8 })
  assert.ok((await received(one, to)).includes(8))
})

test('a transaction ID sent many times at once through two processes is carried out once per device', {
  skip,
}, async () => {
  await using opened = await open()
  const { one, two } = opened
  const [a, b, to] = await loginMany(one, 3)
  assert.ok(a && b && to)
  for (let round = 0; round < 10; round++) {
    const all = [a, b].flatMap((session) => [0, 1].map((id) => ({ session, id: `${round}-${id}` })))
    // In opposite orders: without an order of their own the processes would deadlock.
    await Promise.all(
      Array.from({ length: 5 }, () => [
        ...all.map(({ session, id }) => send(one, session, to, { n: round, id })),
        ...all.toReversed().map(({ session, id }) => send(two, session, to, { n: round, id })),
      ]).flat(),
    )
  }
  const counts = Map.groupBy(await received(one, to), (n) => n)
  assert.deepEqual(
    [...counts].map(([n, all]) => [n, all.length]),
    Array.from({ length: 10 }, (_, n) => [n, 4]),
  )
})

test('messages of one sender arrive in the order of sending, to one device or to all, during sends of others', {
  skip,
}, async () => {
  await using opened = await open()
  const { one, two } = opened
  const senders = await loginMany(one, 6)
  const to = await login(one, 1)
  const other = await login(one, 1, to.userId, 'OTHER' as DeviceId)
  await Promise.all(
    senders.flatMap((session, s) =>
      Array.from({ length: 50 }, (_, i) =>
        send(s % 2 ? one : two, session, to, { n: s * 1000 + i, everyDevice: i % 3 === 0 }),
      ),
    ),
  )
  const inOrder = Array.from({ length: 50 }, (_, i) => i)
  for (const [device, expected] of [
    [to, inOrder],
    [other, inOrder.filter((i) => i % 3 === 0)],
  ] as const) {
    const all = await received(two, device)
    for (const [s] of senders.entries())
      assert.deepEqual(
        all.filter((n) => Math.floor(n / 1000) === s).map((n) => n % 1000),
        expected,
      )
  }
})

test('after another process acknowledged the end of a session, no look-up, sync or send accepts its token', {
  skip,
}, async () => {
  await using opened = await open()
  const { one, two } = opened
  const others = await loginMany(one, 4)
  const end = new AbortController()
  const traffic = others.flatMap((session) =>
    Array.from({ length: 8 }, async () => {
      while (!end.signal.aborted) {
        assert.deepEqual(await two.accounts.session(session.tokenHash), session)
        await sync(two, session)
      }
    }),
  )
  for (let round = 0; round < 25; round++) {
    const session = await login(one, 1)
    assert.deepEqual(await two.accounts.session(session.tokenHash), session)
    await one.devices.removeAll(session, 2)
    const [found, read, sent] = await Promise.allSettled([
      two.accounts.session(session.tokenHash),
      sync(two, session),
      send(two, session, others[0] ?? session, { n: round }),
    ])
    assert.deepEqual(
      [found, ...statuses([read, sent])],
      [{ status: 'fulfilled', value: undefined }, 401, 401],
    )
  }
  end.abort()
  await Promise.all(traffic)
})

test('concurrent syncs see the messages acknowledged before them, each its own', { skip }, async () => {
  await using opened = await open()
  const { one, two } = opened
  const sessions = await loginMany(one, 20)
  const tokens = new Map<Session, SyncToken>()
  for (const session of sessions) tokens.set(session, tokenOf(await sync(two, session)))
  for (let round = 0; round < 10; round++) {
    const receivers = sessions.filter((_, i) => (i + round) % 3 === 0)
    await Promise.all(receivers.map((session) => send(one, session, session, { n: round })))
    const readings = await Promise.all(sessions.map((session) => sync(two, session, tokens.get(session))))
    for (const [i, session] of sessions.entries()) {
      const reading = readings[i] ?? assert.fail()
      assert.deepEqual(reading.toDevice, receivers.includes(session) ? [JSON.stringify({ n: round })] : [])
      tokens.set(session, tokenOf(reading))
    }
  }
})
