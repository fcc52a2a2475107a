/**
 * Random schedules of faults with a real server. Despite lost, repeated, reordered, restored or false answers, the
 * server never offers a key that the account does not hold, except between a rollback and the heal that follows it.
 * PROPERTY_RUNS sets the number of schedules.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import type { AnyJson } from '@latchkey/testing/matrix-session.ts'
import { REFUSING, startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'
import {
  memoryStore,
  type OutgoingRequest,
  type ServerLevel,
  type Snapshot,
  type Store,
  StoreError,
  type SyncTicket,
} from '../../src/index.ts'
import { ManagerDevice } from '../support/manager/device.ts'
import { type Ciphertext, damaged, Sender } from '../support/manager/sender.ts'
import { RestorableServer } from '../support/manager/server.ts'

const RUNS = Number(process.env['PROPERTY_RUNS'] ?? 12)
const KEYS_PER_DAY = 400
const HEALS_PER_DAY = 40
const MAX_STORED_BYTES = 500_000
const MINUTE_MS = 60_000
const DAY_MS = 1_440 * MINUTE_MS

const OPERATIONS = [
  'sync',
  'requests',
  'sync and requests',
  'lose an answer',
  'hold an answer',
  'deliver the held answer',
  'hold a sync',
  'deliver the held sync',
  'repeat the last sync',
  'crash',
  'next write fails',
  'next write is made and its answer lost',
  'copy the store',
  'restore the copy',
  'other process syncs',
  'other process sends',
  'sync says zero',
  'sync says zero without a digest',
  'sync says the fallback was used',
  'clock forward',
  'clock back',
  'clock far ahead for a sync',
  'clock far back for a sync',
  'days of zero',
  'heals are refused with 409',
  'heals are refused with 403',
  'claim',
  'claim many',
  'message',
  'late message',
  'forged message',
  'replayed message',
] as const
type Operation = (typeof OPERATIONS)[number] | (typeof OF_THE_SERVER)[number]

/** Events of a server that belongs to one world alone. */
const OF_THE_SERVER = [
  'server backs up',
  'server goes back',
  'server raises its epoch',
  'server goes back with a new epoch',
] as const
/** Without digests a rolled-back store is not noticed before an upload conflicts. */
const NEEDS_DIGESTS: readonly Operation[] = ['restore the copy']

let server: TestServer
before(async () => {
  server = await startTestServer(REFUSING)
})
after(async () => {
  await server[Symbol.asyncDispose]()
})

let worlds = 0

/** A world's effects on its device's store. */
type Conditions = { offset: number; fault?: Operation }

/** A store whose next write can fail, before or after it was made, like in a crash or on a full disk. */
function faulty(store: Store, conditions: Conditions): Store {
  return {
    ...store,
    async write(expected, changes) {
      const { fault } = conditions
      delete conditions.fault
      if (fault === undefined) return store.write(expected, changes)
      if (fault === 'next write is made and its answer lost') await store.write(expected, changes)
      throw new StoreError('unreadable', 'the disk is temporarily unavailable')
    },
  }
}

class World {
  readonly sender: Sender
  device: ManagerDevice
  other: ManagerDevice | undefined
  /** Since the store was rolled back, the server may offer keys that the account does not have. */
  isSetBack = false
  readonly #clock: Conditions
  readonly #uploaded = new Map<string, string>()
  readonly #level: ServerLevel
  readonly #server: RestorableServer | undefined
  readonly #claimed: string[] = []
  readonly #messages: Ciphertext[] = []
  #copy: Snapshot | undefined
  #heldAnswer: { request: OutgoingRequest; status: number; body: AnyJson } | undefined
  #heldSync: { answer: AnyJson; ticket: SyncTicket } | undefined
  #lastSync: { answer: AnyJson; ticket: SyncTicket } | undefined
  #texts = 0

  private constructor(
    sender: Sender,
    device: ManagerDevice,
    clock: Conditions,
    { level, own }: { readonly level: ServerLevel; readonly own?: RestorableServer | undefined },
  ) {
    this.sender = sender
    this.device = device
    this.#clock = clock
    this.#level = level
    this.#server = own
    device.level = level
  }

  static async create(level: ServerLevel = 'latchkey', own?: RestorableServer): Promise<World> {
    const number = ++worlds
    const clock: Conditions = { offset: 0 }
    const { url } = own ?? server
    const device = await ManagerDevice.signIn(url, {
      user: `device${number}`,
      deviceId: 'DEVICE',
      ...World.#options(memoryStore(), clock),
    })
    const world = new World(await Sender.signIn(url, `sender${number}`), device, clock, { level, own })
    await own?.backUp()
    return world
  }

  static #options(store: Store, clock: Conditions) {
    return {
      store: faulty(store, clock),
      now: () => Date.now() + clock.offset,
      limits: { newKeysPerDay: KEYS_PER_DAY },
      budget: { healsPerDay: HEALS_PER_DAY },
    }
  }

  get #target() {
    const { userId, deviceId, manager } = this.device
    return { userId, deviceId, identityKey: manager.identityKeys.curve25519 }
  }

  async do(operation: Operation): Promise<void> {
    const { device } = this
    switch (operation) {
      case 'sync':
        return this.#sync(device)
      case 'requests':
        return device.sendRequests()
      case 'sync and requests':
        await this.#sync(device)
        return device.sendRequests()
      case 'lose an answer':
        return this.#sendOne(() => undefined)
      case 'hold an answer':
        return this.#sendOne((request, answer) => {
          this.#heldAnswer = { request, ...answer }
          return undefined
        })
      case 'deliver the held answer':
        if (this.#heldAnswer === undefined) return
        return device.manager.markRequestAsSent(this.#heldAnswer.request.id, this.#heldAnswer)
      case 'hold a sync':
        this.#heldSync = await this.#askSync(device)
        return
      case 'deliver the held sync':
        if (this.#heldSync === undefined) return
        return device.receive(this.#heldSync.answer, this.#heldSync.ticket)
      case 'repeat the last sync':
        if (this.#lastSync === undefined) return
        return device.receive(this.#lastSync.answer, this.#lastSync.ticket)
      case 'crash':
        return device.crash()
      case 'next write fails':
      case 'next write is made and its answer lost':
        this.#clock.fault = operation
        return
      case 'copy the store':
        this.#copy = await device.store.read()
        return
      case 'restore the copy':
        return this.#restore()
      case 'other process syncs':
        return this.#sync(await this.#otherProcess())
      case 'other process sends':
        return (await this.#otherProcess()).sendRequests()
      case 'sync says zero':
        return this.#lie((answer) => ({ ...answer, device_one_time_keys_count: { signed_curve25519: 0 } }))
      case 'sync says zero without a digest':
        return this.#lie(({ 'dev.latchkey.key_pool': _pool, ...answer }) => ({
          ...answer,
          device_one_time_keys_count: { signed_curve25519: 0 },
        }))
      case 'sync says the fallback was used':
        return this.#lie((answer) => ({ ...answer, device_unused_fallback_key_types: [] }))
      case 'clock forward':
        this.#clock.offset += 20 * MINUTE_MS
        return
      case 'clock back':
        this.#clock.offset -= 30 * MINUTE_MS
        return
      case 'clock far ahead for a sync':
        return this.#withClock(40 * DAY_MS)
      case 'clock far back for a sync':
        return this.#withClock(-400 * DAY_MS)
      case 'days of zero':
        for (let i = 0; i < 6; i++) {
          await this.#lie(({ 'dev.latchkey.key_pool': _pool, ...answer }) => ({
            ...answer,
            device_one_time_keys_count: { signed_curve25519: 0 },
          }))
          await device.sendRequests()
          this.#clock.offset += 11 * 60 * MINUTE_MS
        }
        return
      case 'heals are refused with 409':
      case 'heals are refused with 403':
        return this.#refuseHeals(operation === 'heals are refused with 409' ? 409 : 403)
      case 'server backs up':
        return this.#server?.backUp()
      case 'server raises its epoch':
        return this.#server?.raiseEpoch()
      case 'server goes back':
      case 'server goes back with a new epoch':
        this.isSetBack = true
        await this.#server?.goBack()
        if (operation === 'server goes back with a new epoch') await this.#server?.raiseEpoch()
        return
      case 'claim':
        return this.#claim(1)
      case 'claim many':
        return this.#claim(20)
      case 'message':
        await this.#claim(1)
        return this.#write(this.#claimed.pop())
      case 'late message':
        return this.#write(this.#claimed.shift())
      case 'forged message':
        return this.#forge()
      case 'replayed message': {
        const [message] = this.#messages
        if (message !== undefined) await this.sender.send(this.#target, message)
        return
      }
    }
  }

  /** The invariants that must hold at every moment. */
  async check(): Promise<void> {
    for (const { request } of [...this.device.sent, ...(this.other?.sent ?? [])]) {
      if (request.type !== 'keys_upload' && request.type !== 'keys_reset') continue
      const body = JSON.parse(request.body ?? '{}')
      for (const [kind, keys] of [
        ['one-time', body.one_time_keys],
        ['fallback', body.fallback_keys],
      ]) {
        for (const [name, { key }] of Object.entries<AnyJson>(keys ?? {})) {
          const known = this.#uploaded.get(`${kind} ${name}`)
          assert.ok(known === undefined || known === key, `two keys were uploaded as ${name}`)
          this.#uploaded.set(`${kind} ${name}`, key)
        }
      }
    }
    if (!this.isSetBack) await this.device.assertSubset()
    const status = await this.device.manager.status()
    assert.ok(status.held <= status.slots, `${status.held} keys held in ${status.slots} slots`)
    assert.ok(status.generatedToday <= KEYS_PER_DAY, `${status.generatedToday} keys made in a day`)
    const heals = (await this.device.manager.history()).length
    assert.ok(heals <= HEALS_PER_DAY, `${heals} heals`)
    assert.ok((await this.#storedBytes()) <= MAX_STORED_BYTES, `${await this.#storedBytes()} bytes stored`)
  }

  /** After the faults: within three syncs the state is correct again. */
  async converge(): Promise<void> {
    this.#heldAnswer = undefined
    this.#heldSync = undefined
    delete this.#clock.fault
    for (let syncs = 0; syncs < 3; syncs++) {
      // Past every pause.
      this.#clock.offset += 61 * MINUTE_MS
      await this.#sync(this.device)
      await this.device.sendRequests()
    }
    const count = await this.device.assertSubset()
    this.isSetBack = false
    const { held, slots, generatedToday } = await this.device.manager.status()
    const expected = Math.min(50, count + slots - held, count + KEYS_PER_DAY - generatedToday)
    // Keys that a wrong count made look issued are on the server, in addition to their replacements.
    const isRight = count >= expected && count <= slots
    assert.ok(isRight, `${count} keys on the server, ${held} held, ${generatedToday} made today`)
    await this.check()
    const texts = ['after the faults, first', 'after the faults, second']
    for (const text of texts) {
      const { key } = await this.sender.claim(this.#target)
      await this.sender.send(this.#target, this.sender.encryptWith(this.#target, key, text))
    }
    this.device.received.length = 0
    await this.#sync(this.device)
    assert.deepEqual(this.device.received.map(({ plaintext }) => plaintext).slice(-2), texts)
  }

  async #storedBytes(): Promise<number> {
    const { records } = await this.device.store.read()
    return [...records].reduce((sum, [key, text]) => sum + key.length + text.length, 0)
  }

  async #sync(device: ManagerDevice): Promise<void> {
    this.#lastSync = await this.#askSync(device)
    await device.receive(this.#lastSync.answer, this.#lastSync.ticket)
  }

  async #askSync(device: ManagerDevice): Promise<{ answer: AnyJson; ticket: SyncTicket }> {
    const ticket = await device.manager.syncStarted()
    return { answer: await device.askSync(), ticket }
  }

  async #lie(rewrite: (answer: AnyJson) => AnyJson): Promise<void> {
    const { answer, ticket } = await this.#askSync(this.device)
    await this.device.receive(rewrite(answer), ticket)
  }

  /** The clock is wrong while a sync is applied, and right again afterwards. */
  async #withClock(offset: number): Promise<void> {
    this.#clock.offset += offset
    try {
      await this.#sync(this.device)
      await this.device.sendRequests()
    } finally {
      this.#clock.offset -= offset
    }
  }

  /** The server answers that it refuses requests that it carried out. Requests end all the same. */
  async #refuseHeals(status: number): Promise<void> {
    const { device } = this
    const honest = device.rewriteAnswer
    device.rewriteAnswer = ({ type }, answer) => (type === 'keys_reset' ? { status, body: {} } : answer)
    try {
      await this.#sync(device)
      await device.sendRequests()
    } finally {
      device.rewriteAnswer = honest
    }
  }

  async #sendOne(rewrite: ManagerDevice['rewriteAnswer']): Promise<void> {
    const { device } = this
    const honest = device.rewriteAnswer
    device.rewriteAnswer = rewrite
    try {
      await device.sendRequests()
    } finally {
      device.rewriteAnswer = honest
    }
  }

  async #otherProcess(): Promise<ManagerDevice> {
    this.other ??= await ManagerDevice.on(this.device.session, World.#options(this.device.store, this.#clock))
    this.other.level = this.#level
    return this.other
  }

  async #restore(): Promise<void> {
    if (this.#copy === undefined) return
    const store = memoryStore()
    delete this.#clock.fault
    await store.write(0, new Map(this.#copy.records))
    this.other = undefined
    this.#heldSync = undefined
    this.#heldAnswer = undefined
    this.#lastSync = undefined
    this.isSetBack = true
    this.device = await ManagerDevice.on(this.device.session, World.#options(store, this.#clock))
    this.device.level = this.#level
  }

  async #claim(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      const wanted = { [this.device.userId]: { [this.device.deviceId]: 'signed_curve25519' } }
      const answer = await this.sender.session.ok('POST', '/v3/keys/claim', { one_time_keys: wanted })
      const keys = Object.values<AnyJson>(
        answer.one_time_keys[this.device.userId]?.[this.device.deviceId] ?? {},
      )
      for (const { key } of keys) this.#claimed.push(key)
    }
  }

  async #write(key: string | undefined): Promise<void> {
    if (key === undefined) return
    const message = this.sender.encryptWith(this.#target, key, `message ${++this.#texts}`)
    this.#messages.push(message)
    await this.sender.send(this.#target, message)
  }

  /** A damaged message that names a key which the server still has, or one that was just claimed. */
  async #forge(): Promise<void> {
    const { oneTimeKeys } = await this.device.audit()
    const key = oneTimeKeys.at(0)?.publicKey ?? this.#claimed.at(0)
    if (key === undefined) return
    await this.sender.send(this.#target, damaged(this.sender.encryptWith(this.#target, key, 'forged')))
  }
}

async function play(world: World, operations: readonly Operation[]): Promise<void> {
  for (const operation of operations) {
    try {
      await world.do(operation)
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
    }
    await world.check()
  }
  await world.converge()
}

function schedules(operations: readonly Operation[], maxLength: number): fc.Arbitrary<Operation[]> {
  return fc.array(fc.constantFrom(...operations), { minLength: 5, maxLength, size: 'max' })
}

const options = (numRuns: number) => ({ numRuns, endOnFailure: (process.env['SHRINK'] ?? '') === '' })

test('under any faults the server offers only held keys, and afterwards the state is correct', async () => {
  await fc.assert(
    fc.asyncProperty(schedules(OPERATIONS, 40), async (operations) => {
      await play(await World.create(), operations)
    }),
    options(RUNS),
  )
})

test('the same holds on servers without digests, except for a rolled-back store', async () => {
  const possible = OPERATIONS.filter((operation) => !NEEDS_DIGESTS.includes(operation))
  const levels = fc.constantFrom<ServerLevel>('msc4162', 'bare')
  await fc.assert(
    fc.asyncProperty(levels, schedules(possible, 40), async (level, operations) => {
      await play(await World.create(level), operations)
    }),
    options(Math.ceil(RUNS / 2)),
  )
})

test('the same holds when the server itself is rolled back, or raises its epoch', async () => {
  const often = [...OF_THE_SERVER, ...OF_THE_SERVER, ...OPERATIONS]
  await fc.assert(
    fc.asyncProperty(schedules(often, 25), async (operations) => {
      await using own = await RestorableServer.start()
      await play(await World.create('latchkey', own), operations)
    }),
    options(Math.ceil(RUNS / 3)),
  )
})
