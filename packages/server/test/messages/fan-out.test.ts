/**
 * Fan-outs and floods of to-device messages over HTTP, with the default rates: key sharing in large rooms passes, a
 * flood is refused and stores nothing, and what a full inbox evicts is logged and counted (issue 11, B1).
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { DeviceId, UserId } from '@latchkey/protocol'
import { temporaryDirectory } from '@latchkey/testing/run-latchkey.ts'
import { ok, refused, send, sync } from '@latchkey/testing/test-client.ts'
import { type AnyJson, startTestServer, TEST_CONFIG, type TestServer } from '@latchkey/testing/test-server.ts'
import { DEFAULT_RATES } from '../../src/config/config.ts'
import type { TokenHash } from '../../src/session.ts'

const RATES = {
  ...DEFAULT_RATES,
  loginPerAddress: { burst: 100, perSecond: 1 },
  registrationPerAddress: { burst: 100, perSecond: 1 },
}
/** 10 000 in `.ci/run`; a fan-out to 2 000 devices shows the same in less time. */
const DEVICES = Number(process.env['FAN_OUT_DEVICES'] ?? 2_000)
const ROTATIONS = 5
const DEVICES_PER_USER = 500
const LOGINS_AT_ONCE = 25
/** Content of an Olm message with a room key. */
const CONTENT = {
  algorithm: 'm.olm.v1.curve25519-aes-sha2',
  sender_key: 'k'.repeat(43),
  ciphertext: 'c'.repeat(700),
}

/** Devices of many users, made through the store: logging in that many takes minutes. */
async function makeDevices(server: TestServer, count: number): Promise<Record<string, string[]>> {
  const users: Record<string, string[]> = {}
  const { accounts } = server.context.store
  for (let from = 0; from < count; from += DEVICES_PER_USER) {
    const userId = `@member${from}:test.example` as UserId
    const account = await accounts.create({ userId, passwordHash: '', now: 1 })
    const ids = Array.from({ length: Math.min(DEVICES_PER_USER, count - from) }, (_, n) => `DEVICE${n}`)
    users[userId] = ids
    for (let first = 0; first < ids.length; first += LOGINS_AT_ONCE) {
      await Promise.all(
        ids.slice(first, first + LOGINS_AT_ONCE).map((id) =>
          accounts.openSession({
            account,
            deviceId: id as DeviceId,
            tokenHash: `${userId} ${id}` as TokenHash,
            now: 1,
          }),
        ),
      )
    }
  }
  return users
}

test(`${ROTATIONS} rotations of a room key reach ${DEVICES} devices at once, and no request is refused`, async () => {
  let now = 1_700_000_000_000
  await using server = await startTestServer({ rates: RATES }, { now: () => now })
  const bob = await server.login('bob')
  const users = await makeDevices(server, DEVICES)
  const messages = Object.fromEntries(
    Object.entries(users).map(([userId, ids]) => [
      userId,
      Object.fromEntries(ids.map((id) => [id, CONTENT])),
    ]),
  )
  for (let rotation = 0; rotation < ROTATIONS; rotation++) {
    ok(await send(server, bob, messages, `rotation-${rotation}`))
    // A lost answer: the repeat costs nothing and delivers nothing.
    ok(await send(server, bob, messages, `rotation-${rotation}`))
  }
  const [userId = ''] = Object.keys(users)
  const alice = { userId, deviceId: 'DEVICE0' }
  const account = await server.context.store.accounts.find(userId as UserId)
  assert.ok(account)
  now += 1
  const session = await server.context.store.accounts.openSession({
    account,
    deviceId: alice.deviceId as DeviceId,
    tokenHash: 'alice' as TokenHash,
    now,
  })
  const query = {
    confirms: false,
    everyoneFromBeginning: false,
    page: { toDevicePerSync: 100, syncPageBytes: 1e9 },
    mayWait: false,
  }
  assert.equal((await server.context.store.sync.read(session, query)).toDevice.length, ROTATIONS)
})

test('a sender over its budget gets a 429, nothing of the request is delivered, and a retry delivers it', async () => {
  let now = 1_700_000_000_000
  const rates = { ...RATES, toDeviceDeliveriesPerUser: { burst: 3, perSecond: 1 } }
  await using server = await startTestServer({ rates }, { now: () => now })
  const [alice, bob] = [await server.login('alice', 'ONE'), await server.login('bob')]
  const two = await server.login('alice', 'TWO')
  const toAll = (n: number): AnyJson => ({ [alice.userId]: { '*': { n } } })
  const received = async (): Promise<number[]> =>
    (await sync(server, alice)).to_device.events.map(({ content }: AnyJson) => content.n)
  ok(await send(server, bob, toAll(1), 'one'))
  const text = refused(await send(server, bob, toAll(2), 'two'), 429, 'M_LIMIT_EXCEEDED')
  assert.match(text, /2 deliveries/)
  // Another device of the same user has no budget of its own, another user has.
  refused(await send(server, await server.login('bob', 'OTHER'), toAll(3), 'three'), 429, 'M_LIMIT_EXCEEDED')
  ok(await send(server, two, toAll(4), 'four'))
  // Repeats and requests without a recipient cost nothing.
  for (let n = 0; n < 5; n++) ok(await send(server, bob, toAll(1), 'one'))
  ok(await send(server, bob, { '@unknown:test.example': { '*': {} } }, 'five'))
  assert.deepEqual(await received(), [1, 4])
  now += 1_000
  ok(await send(server, bob, toAll(2), 'two'))
  assert.deepEqual(await received(), [1, 4, 2])
})

test('an eviction is logged with recipient and sender, and counted; the recipient keeps what others sent', async () => {
  using directory = temporaryDirectory()
  const log = join(directory.path, 'security.log')
  await using server = await startTestServer({
    securityLog: log,
    metricsPort: 0,
    sizes: { ...TEST_CONFIG.sizes, inboxMessages: 10 },
  })
  const [alice, bob, mallory] = [
    await server.login('alice'),
    await server.login('bob'),
    await server.login('mallory'),
  ]
  const to = (n: number): AnyJson => ({ [alice.userId]: { [alice.deviceId]: { n } } })
  for (let n = 0; n < 3; n++) ok(await send(server, bob, to(n), `honest-${n}`))
  for (let n = 10; n < 30; n++) ok(await send(server, mallory, to(n), `flood-${n}`))
  const { events } = (await sync(server, alice)).to_device
  assert.deepEqual(
    events.map(({ content }: AnyJson) => content.n),
    [0, 1, 2, 23, 24, 25, 26, 27, 28, 29],
  )
  const lines = readFileSync(log, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
    .filter(({ event }) => event === 'messages_evicted')
  assert.equal(lines.length, 13)
  const [{ userId, recipientUserId, recipientDeviceId, evictedUserId, cause, count }] = lines
  assert.deepEqual(
    { userId, recipientUserId, recipientDeviceId, evictedUserId, cause, count },
    {
      userId: mallory.userId,
      recipientUserId: alice.userId,
      recipientDeviceId: alice.deviceId,
      evictedUserId: mallory.userId,
      cause: 'messages',
      count: 1,
    },
  )
  const page = await (await fetch(server.metricsUrl ?? '')).text()
  assert.match(page, /latchkey_evicted_messages_total\{cause="messages"\} 13/)
})

test('messages that a sync reported may be evicted before it acknowledges them; the rest keeps its order', async () => {
  await using server = await startTestServer({ sizes: { ...TEST_CONFIG.sizes, inboxMessages: 4 } })
  const [alice, bob] = [await server.login('alice'), await server.login('bob')]
  const to = (n: number): AnyJson => ({ [alice.userId]: { [alice.deviceId]: { n } } })
  const numbers = (answer: AnyJson): number[] =>
    answer.to_device.events.map(({ content }: AnyJson) => content.n)
  for (let n = 0; n < 4; n++) ok(await send(server, bob, to(n), `early-${n}`))
  const first = await sync(server, alice)
  assert.deepEqual(numbers(first), [0, 1, 2, 3])
  for (let n = 4; n < 6; n++) ok(await send(server, bob, to(n), `late-${n}`))
  // The answer was lost: what was reported and evicted is not reported again.
  assert.deepEqual(numbers(await sync(server, alice)), [2, 3, 4, 5])
  assert.deepEqual(numbers(await sync(server, alice, { since: first.next_batch })), [4, 5])
})
