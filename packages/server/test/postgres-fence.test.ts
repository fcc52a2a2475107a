/**
 * The rollback fence over PostgreSQL (key-pool.md "Rollback fence"): what raises it, what does not, and what it does then.
 * Databases are really put back: dropped, and the copy from before takes their name. Needs LATCHKEY_TEST_POSTGRES.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type DeviceId, SIGNED_CURVE25519 } from '@latchkey/protocol'
import pg from 'pg'
import { DEFAULT_CONFIG, postgresOptions } from '../src/config/config.ts'
import type { FenceEvent } from '../src/fence/events.ts'
import type { PoolStatus, UploadedKey } from '../src/pool/port.ts'
import type { Session } from '../src/session.ts'
import type { Store } from '../src/store.ts'
import { openPostgresStore } from '../src/store/postgres/index.ts'
import type { SyncReading } from '../src/sync/port.ts'
import type { SyncToken } from '../src/sync/token.ts'
import { claimer, DEVICE, login, makeKey, USER } from './store-contract/test-device.ts'

const SERVER = process.env['LATCHKEY_TEST_POSTGRES'] ?? ''
const skip = SERVER === '' && 'LATCHKEY_TEST_POSTGRES names no database to test with'
const DAY_MS = 24 * 60 * 60 * 1000
const NOW = 1_700_000_000_000

const FALLBACK = makeKey(SIGNED_CURVE25519, 'FALLBACK', 100_000)

type Opened = { readonly store: Store; readonly events: FenceEvent[] }

/** A database that can be put back, and the directories of those who use it. */
class Rewindable {
  readonly name = `fence_${randomBytes(6).toString('hex')}`
  readonly directories: string[] = []
  readonly #stores = new Set<Store>()

  static async create(): Promise<Rewindable> {
    const rewindable = new Rewindable()
    await administer(`create database ${rewindable.name}`)
    return rewindable
  }

  /** As a process that has this directory opens it. */
  async open(directory = this.newDirectory(), now = () => NOW): Promise<Opened> {
    const url = new URL(SERVER)
    url.pathname = `/${this.name}`
    const events: FenceEvent[] = []
    const store = await openPostgresStore({
      ...postgresOptions({ ...DEFAULT_CONFIG, database: url.href, databaseConnections: 4 }),
      fence: { directory },
      onFence: (event) => events.push(event),
      now,
    })
    this.#stores.add(store)
    return { store, events }
  }

  newDirectory(): string {
    const directory = mkdtempSync(join(tmpdir(), 'latchkey-fence-'))
    this.directories.push(directory)
    return directory
  }

  /** Nobody may be connected. */
  async backUp(): Promise<void> {
    await administer(`create database ${this.name}_backup template ${this.name}`)
  }

  /** Whoever is connected is cut off. */
  async restore(): Promise<void> {
    await administer(`drop database ${this.name} with (force)`)
    await administer(`alter database ${this.name}_backup rename to ${this.name}`)
    // The server was not started for it, as it is when a real one is put back.
    await this.query(`update stream set server_start = 'another'`)
  }

  async query<T extends object>(sql: string): Promise<T[]> {
    return administer<T>(sql, this.name)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const store of this.#stores) await store.close()
    for (const name of [this.name, `${this.name}_backup`])
      await administer(`drop database if exists ${name} with (force)`)
    for (const directory of this.directories) rmSync(directory, { recursive: true, force: true })
  }
}

async function administer<T extends object>(sql: string, database?: string): Promise<T[]> {
  const url = new URL(SERVER)
  if (database !== undefined) url.pathname = `/${database}`
  const client = new pg.Client({ connectionString: url.href })
  await client.connect()
  try {
    return (await client.query<T>(sql)).rows
  } finally {
    await client.end()
  }
}

function keys(from: number, to: number): UploadedKey[] {
  return Array.from({ length: to - from }, (_, i) =>
    makeKey(SIGNED_CURVE25519, `K${String(from + i).padStart(4, '0')}`, from + i),
  )
}

async function upload(store: Store, session: Session, oneTimeKeys: UploadedKey[], fallback = false) {
  return store.pools.upload({ session, oneTimeKeys, fallbackKeys: fallback ? [FALLBACK] : [], now: NOW })
}

async function claim(store: Store): Promise<string | undefined> {
  const targets = [{ userId: USER, deviceId: DEVICE, algorithm: SIGNED_CURVE25519 }]
  return (await store.pools.claim({ claimer: claimer('bob'), targets, now: NOW }))[0]?.keyId
}

async function claims(store: Store, count: number): Promise<(string | undefined)[]> {
  const claimed: (string | undefined)[] = []
  for (let n = 0; n < count; n++) claimed.push(await claim(store))
  return claimed
}

function sync(store: Store, session: Session, token?: SyncToken): Promise<SyncReading> {
  return store.sync.read(session, {
    ...(token && { token }),
    confirms: true,
    everyoneFromBeginning: token !== undefined,
    toDeviceLimit: 100,
    isAnswer: () => true,
  })
}

async function send(store: Store, session: Session, n: number): Promise<void> {
  await store.messages.send({
    session,
    transactionId: `m.test\0${n}`,
    messages: [{ userId: USER, deviceId: DEVICE, event: JSON.stringify({ n }) }],
    now: NOW,
  })
}

const countOf = (status: PoolStatus): number | undefined => status.algorithms[0]?.count
const kindsOf = (events: readonly FenceEvent[]): string[] => events.map(({ kind }) => kind)

test('a database restored from before the claims raises the fence at the start: no key is issued twice', {
  skip,
}, async () => {
  await using database = await Rewindable.create()
  const directory = database.newDirectory()
  const before = await database.open(directory)
  const session = await login(before.store, NOW)
  await upload(before.store, session, keys(0, 10), true)
  await before.store.close()
  await database.backUp()

  const lost = await database.open(directory)
  assert.deepEqual(kindsOf(lost.events), ['stands'])
  const issued = await claims(lost.store, 4)
  const told = await sync(lost.store, session)
  await lost.store.close()
  await database.restore()

  const after = await database.open(directory)
  assert.deepEqual(kindsOf(after.events), ['raised'])
  assert.deepEqual(await claims(after.store, 3), ['FALLBACK', 'FALLBACK', 'FALLBACK'])
  const status = await after.store.pools.status(session.deviceRef)
  assert.equal(countOf(status), 0)
  assert.notEqual(status.epoch, told.epoch)
  assert.ok(status.generation > told.pools.generation)
  // The client is told at once, and goes on.
  const reading = await sync(after.store, session, { epoch: told.epoch, position: told.position })
  assert.equal(reading.newEpoch, true)
  assert.equal(reading.signalled, true)
  assert.equal(countOf(reading.pools), 0)
  const { outcomes } = await upload(after.store, session, keys(5, 15))
  assert.deepEqual(
    [...outcomes.values()],
    [...Array.from({ length: 5 }, () => 'already_removed'), ...Array.from({ length: 5 }, () => 'stored')],
  )
  const fresh = await claims(after.store, 5)
  assert.ok(fresh.every((key) => !issued.includes(key)))
  assert.deepEqual(fresh, ['K0010', 'K0011', 'K0012', 'K0013', 'K0014'])
})

test('a database that is put back under running processes raises the fence once, whoever notices first', {
  skip,
}, async () => {
  await using database = await Rewindable.create()
  const directories = [database.newDirectory(), database.newDirectory()] as const
  const setUp = await database.open(directories[0])
  const session = await login(setUp.store, NOW)
  await upload(setUp.store, session, keys(0, 50))
  await setUp.store.close()
  await database.backUp()

  const one = await database.open(directories[0])
  const two = await database.open(directories[1])
  const issued = [...(await claims(one.store, 5)), ...(await claims(two.store, 5))]
  assert.equal(new Set(issued).size, 10)
  await database.restore()

  const answers = await Promise.allSettled(
    [one, two, one, two].map(({ store }) => untilServed(() => claim(store))),
  )
  for (const answer of answers) assert.deepEqual(answer, { status: 'fulfilled', value: undefined })
  await upload(two.store, session, keys(50, 60))
  const again = [...(await claims(one.store, 5)), ...(await claims(two.store, 5))]
  assert.deepEqual(
    again.toSorted(),
    keys(50, 60).map(({ keyId }) => keyId as string),
  )
  const raised = [...one.events, ...two.events].filter(({ kind }) => kind === 'raised')
  assert.equal(raised.length, 1)
  assert.deepEqual(await database.query(`select fence::int from stream`), [{ fence: 1 }])
})

/** A request may be told to come back while the database is away. */
async function untilServed<T>(request: () => Promise<T>): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await request()
    } catch (error) {
      if (attempt === 20 || !(error instanceof Error && 'status' in error && error.status === 503))
        throw error
    }
  }
}

test('a process that ends in whatever way and starts again raises nothing', { skip }, async () => {
  await using database = await Rewindable.create()
  let directory = database.newDirectory()
  let session: Session | undefined
  for (let round = 0; round < 5; round++) {
    const { store, events } = await database.open(directory)
    session ??= await login(store, NOW)
    await upload(store, session, keys(round * 10, round * 10 + 10))
    // In the middle of claims, every connection is cut, as when the process is killed.
    const claiming = Promise.allSettled(Array.from({ length: 5 }, () => claim(store)))
    await administer(
      `select pg_terminate_backend(pid) from pg_stat_activity where datname = '${database.name}'`,
    )
    await claiming
    if (round % 2 === 0) await store.close()
    else {
      // What a killed process leaves behind, without its locks.
      const left = database.newDirectory()
      cpSync(directory, left, { recursive: true, filter: (file) => !file.includes('.lock') })
      directory = left
    }
    assert.deepEqual(kindsOf(events), ['stands'])
  }
})

test('a row that is behind is found by the next write, although no connection was lost', {
  skip,
}, async () => {
  await using database = await Rewindable.create()
  const { store, events } = await database.open()
  const session = await login(store, NOW)
  await upload(store, session, keys(0, 10))
  await claims(store, 2)
  await database.query(`update writers set n = 0`)
  assert.equal(await claim(store), undefined)
  assert.deepEqual(kindsOf(events), ['stands', 'raised'])
})

test('a database that never had the epoch of what was acknowledged is found by the next write, however far it counts', {
  skip,
}, async () => {
  await using database = await Rewindable.create()
  const { store, events } = await database.open()
  const session = await login(store, NOW)
  await upload(store, session, keys(0, 10))
  await database.query(`update stream set epoch = 'of before'`)
  await database.query(`update writers set n = n + 1000`)
  assert.equal(await claim(store), undefined)
  assert.deepEqual(kindsOf(events), ['stands', 'raised'])
})

test('without its witness a process says so, raises nothing, and a sync token is proof all the same', {
  skip,
}, async () => {
  await using database = await Rewindable.create()
  const before = await database.open()
  const session = await login(before.store, NOW)
  await upload(before.store, session, keys(0, 10))
  await before.store.close()
  await database.backUp()
  const lost = await database.open()
  await claims(lost.store, 5)
  await send(lost.store, session, 1)
  const told = await sync(lost.store, session)
  await lost.store.close()
  await database.restore()

  const after = await database.open()
  assert.deepEqual(kindsOf(after.events), ['no_witness', 'stands'])
  const reading = await sync(after.store, session, { epoch: told.epoch, position: told.position })
  assert.deepEqual(kindsOf(after.events), ['no_witness', 'stands', 'raised'])
  assert.equal(reading.newEpoch, true)
  assert.equal(countOf(reading.pools), 0)
  assert.ok(reading.position > told.position)
  // The same proof, and whoever else brings it, raises nothing again.
  await sync(after.store, session, { epoch: told.epoch, position: told.position + 1 })
  assert.equal(after.events.filter(({ kind }) => kind === 'raised').length, 1)
})

test('a token of an epoch that the store never had raises the fence, and the next one of it does not', {
  skip,
}, async () => {
  await using database = await Rewindable.create()
  const { store, events } = await database.open()
  const session = await login(store, NOW)
  await sync(store, session, { epoch: 'NeverHad', position: 3 })
  await sync(store, session, { epoch: 'NeverHad', position: 7 })
  assert.equal(events.filter(({ kind }) => kind === 'raised').length, 1)
})

test('a token of a former epoch acknowledges nothing beyond its end: no message is lost', {
  skip,
}, async () => {
  await using database = await Rewindable.create()
  const directory = database.newDirectory()
  const before = await database.open(directory)
  const session = await login(before.store, NOW)
  await send(before.store, session, 1)
  const first = await sync(before.store, session)
  await send(before.store, session, 2)
  await before.store.close()
  await database.backUp()
  const lost = await database.open(directory)
  for (const n of [3, 4, 5, 6]) await send(lost.store, session, n)
  const told = await sync(lost.store, session)
  await lost.store.close()
  await database.restore()

  const after = await database.open(directory)
  await send(after.store, session, 7)
  // Who had seen all of the lost ones has seen 2; who had seen only 1 has not.
  const early = await sync(after.store, session, { epoch: first.epoch, position: first.position })
  assert.deepEqual(early.toDevice.map(numberOf), [2, 7])
  const late = await sync(after.store, session, { epoch: told.epoch, position: told.position })
  assert.deepEqual(late.toDevice.map(numberOf), [7])
})

function numberOf(event: string): number {
  return (JSON.parse(event) as { n: number }).n
}

test('what was sent after the database went back unnoticed is delivered, although its positions were given before', {
  skip,
}, async () => {
  await using database = await Rewindable.create()
  const before = await database.open()
  const session = await login(before.store, NOW)
  const other = await login(before.store, NOW, USER, 'OTHER' as DeviceId)
  await before.store.close()
  await database.backUp()
  const lost = await database.open()
  for (const n of [1, 2, 3, 4, 5]) await send(lost.store, session, n)
  const told = await sync(lost.store, session)
  await lost.store.close()
  await database.restore()

  // Neither has a witness, and one of them opens the database when the other has written to it.
  const one = await database.open()
  for (const n of [6, 7]) await send(one.store, session, n)
  const seen = await sync(one.store, other)
  const two = await database.open()
  const reading = await sync(two.store, session, { epoch: told.epoch, position: told.position })
  assert.equal(two.events.filter(({ kind }) => kind === 'raised').length, 1)
  assert.deepEqual(reading.toDevice.map(numberOf), [6, 7])
  assert.equal((await sync(one.store, other, { epoch: seen.epoch, position: seen.position })).newEpoch, true)
})

test('fallback keys go too when more than six days may have been lost, and stay otherwise', {
  skip,
}, async () => {
  for (const days of [5, 7]) {
    await using database = await Rewindable.create()
    const directory = database.newDirectory()
    const before = await database.open(directory)
    const session = await login(before.store, NOW)
    await upload(before.store, session, keys(0, 5), true)
    await before.store.close()
    await database.backUp()
    const lost = await database.open(directory)
    await claims(lost.store, 2)
    await lost.store.close()
    await database.restore()
    const after = await database.open(directory, () => NOW + days * DAY_MS)
    assert.equal(await claim(after.store), days === 5 ? 'FALLBACK' : undefined)
    const [event] = after.events
    assert.equal(event?.kind === 'raised' && event.droppedFallbackKeys, days === 7)
  }
})

test('a clock that is set back raises nothing', { skip }, async () => {
  await using database = await Rewindable.create()
  const directory = database.newDirectory()
  let now = NOW
  for (const step of [0, -400 * DAY_MS, 10 * DAY_MS]) {
    now += step
    const { store, events } = await database.open(directory, () => now)
    const session = await login(store, now)
    await upload(store, session, keys(0, 5))
    await store.close()
    assert.deepEqual(kindsOf(events), ['stands'])
  }
})

test('processes that share a directory have a witness each, and take them up again', { skip }, async () => {
  await using database = await Rewindable.create()
  const directory = database.newDirectory()
  const [one, two] = [await database.open(directory), await database.open(directory)]
  const session = await login(one.store, NOW)
  await upload(two.store, session, keys(0, 5))
  const files = (): string[] => readdirSync(directory).filter((name) => !name.includes('.lock'))
  assert.equal(files().length, 2)
  await one.store.close()
  await two.store.close()
  const again = await database.open(directory)
  assert.deepEqual(kindsOf(again.events), ['stands'])
  assert.equal(files().length, 2)
})

test('twice put back, twice raised, and each time only what came after is issued', { skip }, async () => {
  await using database = await Rewindable.create()
  const directory = database.newDirectory()
  const setUp = await database.open(directory)
  const session = await login(setUp.store, NOW)
  await setUp.store.close()
  const issued: (string | undefined)[] = []
  for (let round = 0; round < 2; round++) {
    const { store } = await database.open(directory)
    await upload(store, session, keys(round * 10, round * 10 + 10))
    await store.close()
    await database.backUp()
    const lost = await database.open(directory)
    issued.push(...(await claims(lost.store, 5)))
    await lost.store.close()
    await database.restore()
  }
  const { store, events } = await database.open(directory)
  assert.deepEqual(kindsOf(events), ['raised'])
  await upload(store, session, keys(30, 40))
  issued.push(...(await claims(store, 12)).filter((key) => key !== undefined))
  assert.equal(new Set(issued).size, issued.length)
  assert.deepEqual(await database.query(`select fence::int from stream`), [{ fence: 2 }])
})
