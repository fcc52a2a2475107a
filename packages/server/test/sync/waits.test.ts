/**
 * Waiting syncs over a store whose reads take time, as those of a database in another process do: the real store, with
 * a gate that delays the results of its reads.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, mock, test } from 'node:test'
import { DEFAULT_CONFIG, storeOptions } from '../../src/config/config.ts'
import { MatrixError } from '../../src/matrix-error.ts'
import type { Session } from '../../src/session.ts'
import { openSqliteStore } from '../../src/store/sqlite/index.ts'
import type { SyncStore } from '../../src/sync/port.ts'
import { sync, type SyncAnswer } from '../../src/sync/sync.ts'
import { SHORTEST_WAIT_MS } from '../../src/sync/wait-places.ts'
import { SyncWaiters } from '../../src/sync/waiters.ts'
import { login, USER } from '../store-contract/test-device.ts'
import { until } from '@latchkey/testing/test-client.ts'

const directory = mkdtempSync(join(tmpdir(), 'latchkey-waits-'))
const store = await openSqliteStore({
  ...storeOptions({ ...DEFAULT_CONFIG, dataDir: directory }),
  onFence: () => {},
  now: Date.now,
})
after(async () => {
  await store.close()
  rmSync(directory, { recursive: true, force: true })
})

const LIMITS = { waitingSyncs: 100, waitingSyncsPerUser: 100, waitingSyncsPerDevice: 2 }
let transactions = 0

/** A store that holds the results of its reads at a gate, and the syncs that wait for its commits. */
class SlowReadings {
  now = 0
  readonly waiters: SyncWaiters
  readonly sync: SyncStore
  readonly #unsubscribe: () => void
  #held: (() => void)[] = []
  #open = true
  /** Reads so far. */
  count = 0

  constructor(limits = LIMITS) {
    this.waiters = new SyncWaiters(limits, () => this.now)
    this.sync = {
      ...store.sync,
      read: async (session, query) => {
        const reading = await store.sync.read(session, query)
        this.count++
        if (!this.#open) await new Promise<void>((resolve) => this.#held.push(resolve))
        return reading
      },
    }
    this.#unsubscribe = store.sync.subscribe({
      device: (ref) => this.waiters.wakeDevice(ref),
      users: (refs) => this.waiters.wakeUsers(refs),
      everyone: () => this.waiters.wakeEveryone(),
    })
  }

  hold(): void {
    this.#open = false
  }

  release(): void {
    this.#open = true
    for (const resolve of this.#held) resolve()
    this.#held = []
  }

  poll(session: Session, since: string, gone?: AbortSignal, timeoutMs = 30_000): Promise<SyncAnswer> {
    const clientGone = (): AbortSignal => gone ?? new AbortController().signal
    return sync(this.sync, this.waiters, {
      session,
      since,
      timeoutMs,
      page: { toDevicePerSync: 100, syncPageBytes: 1e9 },
      clientGone,
    })
  }

  async token(session: Session): Promise<string> {
    const request = {
      session,
      timeoutMs: 0,
      page: { toDevicePerSync: 100, syncPageBytes: 1e9 },
      clientGone: () => AbortSignal.abort(),
    }
    return (await sync(this.sync, this.waiters, request)).nextBatch
  }

  [Symbol.dispose](): void {
    this.release()
    this.waiters.close()
    this.#unsubscribe()
  }
}

/** Lets everything that is due run. */
async function turns(): Promise<void> {
  for (let n = 0; n < 10; n++) await new Promise((resolve) => setImmediate(resolve))
}

async function message(session: Session, event: string): Promise<void> {
  const transaction = `t${++transactions}`
  const { deviceId } = session
  await store.messages.send({ session, transaction, messages: [{ userId: USER, deviceId, event }], now: 1 })
}

test('a commit during the first read of a long-poll is in its answer', async () => {
  using slow = new SlowReadings()
  const session = await login(store, 1)
  const since = await slow.token(session)
  slow.hold()
  const answer = slow.poll(session, since)
  const before = slow.count
  await until(() => slow.count > before)
  await message(session, '{"n":1}')
  slow.release()
  assert.deepEqual((await answer).toDevice, ['{"n":1}'])
  assert.equal(slow.waiters.count, 0)
})

test('a commit during a read after an earlier wake is in the answer too', async () => {
  using slow = new SlowReadings()
  const session = await login(store, 1)
  const since = await slow.token(session)
  const answer = slow.poll(session, since)
  await until(() => slow.waiters.count === 1)
  slow.hold()
  const before = slow.count
  slow.waiters.wakeDevice(session.deviceRef)
  await until(() => slow.count > before)
  await message(session, '{"n":2}')
  slow.release()
  assert.deepEqual((await answer).toDevice, ['{"n":2}'])
})

test('several wakes during one read cause one more read, and a read without changes does not end the wait', async () => {
  using slow = new SlowReadings()
  const session = await login(store, 1)
  const answer = slow.poll(session, await slow.token(session))
  await until(() => slow.waiters.count === 1)
  slow.hold()
  const before = slow.count
  slow.waiters.wakeDevice(session.deviceRef)
  await until(() => slow.count === before + 1)
  for (let i = 0; i < 5; i++) slow.waiters.wakeUsers([session.userRef])
  slow.release()
  await until(() => slow.count === before + 2)
  assert.equal(slow.waiters.count, 1)
  await message(session, '{"n":3}')
  assert.deepEqual((await answer).toDevice, ['{"n":3}'])
  assert.equal(slow.count, before + 3)
})

test('several wakes in one turn cause one read', async () => {
  using slow = new SlowReadings()
  const session = await login(store, 1)
  const answer = slow.poll(session, await slow.token(session))
  await until(() => slow.waiters.count === 1)
  const before = slow.count
  for (let i = 0; i < 5; i++) slow.waiters.wakeDevice(session.deviceRef)
  slow.waiters.wakeUsers([session.userRef])
  await turns()
  assert.equal(slow.count, before + 1)
  await message(session, '{"n":4}')
  await answer
  assert.equal(slow.count, before + 2)
})

test('a change that concerns many wakes each once, over a while; a message wakes its device at once', async () => {
  using slow = new SlowReadings({ ...LIMITS, waitingSyncsPerDevice: 100 })
  const session = await login(store, 1)
  const since = await slow.token(session)
  const answers = Array.from({ length: 50 }, () => slow.poll(session, since))
  await until(() => slow.waiters.count === 50)
  mock.timers.enable({ apis: ['setTimeout'] })
  try {
    const before = slow.count
    for (let i = 0; i < 3; i++) slow.waiters.wakeUsers([session.userRef])
    await turns()
    assert.equal(slow.count, before, 'none is woken at once')
    mock.timers.tick(50 * 5)
    await turns()
    assert.equal(slow.count, before + 50, 'each reads once for the three changes')
    slow.waiters.wakeUsers([session.userRef])
    await message(session, '{"n":5}')
    await Promise.all(answers)
    assert.equal(slow.count, before + 100, 'each reads once for the message')
    mock.timers.tick(50 * 5)
  } finally {
    mock.timers.reset()
  }
})

test('a timeout during a read ends the wait after another read', async () => {
  using slow = new SlowReadings()
  const session = await login(store, 1)
  const since = await slow.token(session)
  const answer = slow.poll(session, since, undefined, 5)
  await until(() => slow.waiters.count === 1)
  slow.hold()
  const before = slow.count
  slow.waiters.wakeDevice(session.deviceRef)
  await until(() => slow.count === before + 1 && slow.waiters.count === 0)
  slow.release()
  assert.equal((await answer).nextBatch, since)
  assert.equal(slow.count, before + 2)
})

test('a client that disconnects during the first read does not wait', async () => {
  using slow = new SlowReadings()
  const session = await login(store, 1)
  const since = await slow.token(session)
  slow.hold()
  const client = new AbortController()
  const answer = slow.poll(session, since, client.signal)
  client.abort()
  slow.release()
  assert.equal((await answer).nextBatch, since)
  assert.equal(slow.waiters.count, 0)
})

test('a session that ends during a read ends the wait with 401', async () => {
  using slow = new SlowReadings()
  const session = await login(store, 1)
  const since = await slow.token(session)
  slow.hold()
  const answer = slow.poll(session, since)
  const refused = assert.rejects(answer, (error) => error instanceof MatrixError && error.status === 401)
  await login(store, 2)
  slow.release()
  await refused
  assert.equal(slow.waiters.count, 0)
})

test('a server that stops during a read ends the wait, and no later sync waits', async () => {
  using slow = new SlowReadings()
  const session = await login(store, 1)
  const since = await slow.token(session)
  slow.hold()
  const answer = slow.poll(session, since)
  slow.waiters.close()
  slow.release()
  assert.equal((await answer).nextBatch, since)
  assert.equal((await slow.poll(session, since)).nextBatch, since)
})

test('a wait over the limit of a device ends the oldest one that has lasted a shortest wait', async () => {
  using slow = new SlowReadings()
  const session = await login(store, 1)
  const since = await slow.token(session)
  const ended: number[] = []
  const poll = (n: number): Promise<unknown> => slow.poll(session, since).then(() => ended.push(n))
  const polls = [poll(1), poll(2)]
  await until(() => slow.waiters.count === 2)
  slow.now = SHORTEST_WAIT_MS
  polls.push(poll(3))
  await until(() => ended.length === 1)
  assert.deepEqual([ended, slow.waiters.count], [[1], 2])
  slow.waiters.close()
  await Promise.all(polls)
  assert.equal(slow.waiters.count, 0)
})

test('waits over the limit of a device go on for a shortest wait, and are refused at twice the limit', async () => {
  using slow = new SlowReadings()
  const session = await login(store, 1)
  const since = await slow.token(session)
  const polls = [1, 2, 3, 4].map(() => slow.poll(session, since))
  await until(() => slow.waiters.count === 4)
  const reads = slow.count
  await assert.rejects(
    slow.poll(session, since),
    (error) => error instanceof MatrixError && error.status === 429,
  )
  assert.equal(slow.count, reads + 1, 'no sync was answered for it')
  slow.waiters.close()
  await Promise.all(polls)
  assert.equal(slow.waiters.count, 0)
})
