/**
 * Random schedules of faults over a real server: whatever is lost, repeated, reordered, restored or claimed to be, the
 * server never offers a key that the account does not hold, except between a rollback and the heal that follows it.
 * PROPERTY_RUNS sets the number of schedules.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import type { AnyJson } from '../../../test/support/matrix-session.ts'
import { startTestServer, type TestServer } from '../../server/test/support/test-server.ts'
import {
  memoryStore,
  type OutgoingRequest,
  type Snapshot,
  type Store,
  StoreError,
  type SyncTicket,
} from '../src/index.ts'
import { ManagerDevice } from './support/manager-device.ts'
import { type Ciphertext, damaged, Sender } from './support/manager-sender.ts'

const RUNS = Number(process.env['PROPERTY_RUNS'] ?? 12)
const KEYS_PER_DAY = 400
const HEALS_PER_DAY = 40
const MAX_STORED_BYTES = 500_000
const MINUTE_MS = 60_000

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
  'claim',
  'claim many',
  'message',
  'late message',
  'forged message',
  'replayed message',
] as const
type Operation = (typeof OPERATIONS)[number]

let server: TestServer
before(async () => {
  server = await startTestServer()
})
after(async () => {
  await server[Symbol.asyncDispose]()
})

let worlds = 0

/** What a world does to its device from below. */
type Conditions = { offset: number; fault?: Operation }

/** A store whose next write can fail, before or after it was made: what a crash or a full disk looks like. */
function faulty(store: Store, conditions: Conditions): Store {
  return {
    ...store,
    async write(expected, changes) {
      const { fault } = conditions
      delete conditions.fault
      if (fault === undefined) return store.write(expected, changes)
      if (fault === 'next write is made and its answer lost') await store.write(expected, changes)
      throw new StoreError('unreadable', 'the disk is gone for a moment')
    },
  }
}

class World {
  readonly sender: Sender
  device: ManagerDevice
  other: ManagerDevice | undefined
  /** Since the store went back: the server may offer keys that the account does not have. */
  isSetBack = false
  readonly #clock: Conditions
  readonly #uploaded = new Map<string, string>()
  readonly #claimed: string[] = []
  readonly #messages: Ciphertext[] = []
  #copy: Snapshot | undefined
  #heldAnswer: { request: OutgoingRequest; status: number; body: AnyJson } | undefined
  #heldSync: { answer: AnyJson; ticket: SyncTicket } | undefined
  #lastSync: { answer: AnyJson; ticket: SyncTicket } | undefined
  #texts = 0

  private constructor(sender: Sender, device: ManagerDevice, clock: Conditions) {
    this.sender = sender
    this.device = device
    this.#clock = clock
  }

  static async create(): Promise<World> {
    const number = ++worlds
    const clock: Conditions = { offset: 0 }
    const device = await ManagerDevice.signIn(server.url, {
      user: `device${number}`,
      deviceId: 'DEVICE',
      ...World.#options(memoryStore(), clock),
    })
    return new World(await Sender.signIn(server.url, `sender${number}`), device, clock)
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

  /** What must hold at every moment. */
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

  /** The faults are over: within three syncs everything is as it should be. */
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
    assert.equal(count, expected, `${count} keys on the server, ${held} held, ${generatedToday} made today`)
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

  async #sendOne(rewrite: ManagerDevice['rewriteAnswer']): Promise<void> {
    const { device } = this
    const honest = device.rewriteAnswer
    device.rewriteAnswer = rewrite
    await device.sendRequests()
    device.rewriteAnswer = honest
  }

  async #otherProcess(): Promise<ManagerDevice> {
    this.other ??= await ManagerDevice.on(this.device.session, World.#options(this.device.store, this.#clock))
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

  /** A message that names a key which the server still has, or one that was just claimed, and is damaged. */
  async #forge(): Promise<void> {
    const { oneTimeKeys } = await this.device.audit()
    const key = oneTimeKeys.at(0)?.publicKey ?? this.#claimed.at(0)
    if (key === undefined) return
    await this.sender.send(this.#target, damaged(this.sender.encryptWith(this.#target, key, 'forged')))
  }
}

test('whatever happens, the server offers only keys that the account holds, and after it all is well', async () => {
  const schedule = fc.array(fc.constantFrom(...OPERATIONS), { minLength: 5, maxLength: 40, size: 'max' })
  await fc.assert(
    fc.asyncProperty(schedule, async (operations) => {
      const world = await World.create()
      for (const operation of operations) {
        try {
          await world.do(operation)
        } catch (error) {
          if (!(error instanceof StoreError)) throw error
        }
        await world.check()
      }
      await world.converge()
    }),
    { numRuns: RUNS, endOnFailure: (process.env['SHRINK'] ?? '') === '' },
  )
})
