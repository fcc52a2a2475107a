/**
 * A sync in pages (sync/page.ts) while others write, against a model: the client that applies the pages it received has
 * the state of the server at the end, also when answers were lost and the server was killed.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { DeviceId, UserId } from '@latchkey/protocol'
import { DEFAULT_POOL_POLICY } from '../../src/pool/policy.ts'
import type { Session } from '../../src/session.ts'
import type { SyncReading } from '../../src/sync/port.ts'
import type { SyncToken } from '../../src/sync/token.ts'
import type { OpenStore, StoreUnderTest } from './store-under-test.ts'
import { login, USER } from './test-device.ts'

const NOW = 1_700_000_000_000
const BOB = '@bob:test.example' as UserId
const PAGE = { toDevicePerSync: 3, syncPageBytes: 400 }
const STEPS = 120
const SEEDS = [1, 2, 3]

export function testSyncPages(under: StoreUnderTest): void {
  for (const seed of SEEDS) {
    test(`pages of a sync bring everything once, with random writes ${seed}, in a ${under.name} store`, async () => {
      const run = await Run.start(under, seed)
      try {
        for (let step = 0; step < STEPS; step++) await run.step()
        await run.catchUp()
        assert.ok(run.pages > 5, 'the sync has several pages')
      } finally {
        await run.close()
      }
    })
  }
}

class Run {
  #open: OpenStore
  readonly #client: Session
  readonly #other: Session
  readonly #bob: Session
  #seed: number
  #number = 0
  /** The server's state. */
  readonly #written = new Map<string, string>()
  readonly #sent: string[] = []
  #listChanges = 0
  /** The client's state. */
  #token: SyncToken | undefined
  readonly #data = new Map<string, string>()
  readonly #received: string[] = []
  #knownListChanges = 0
  pages = 0

  private constructor(
    open: OpenStore,
    [client, other, bob]: readonly [Session, Session, Session],
    seed: number,
  ) {
    this.#open = open
    this.#client = client
    this.#other = other
    this.#bob = bob
    this.#seed = seed
  }

  static async start(under: StoreUnderTest, seed: number): Promise<Run> {
    const open = await under.open(DEFAULT_POOL_POLICY)
    const { store } = open
    const client = await login(store, NOW)
    const other = await login(store, NOW, USER, 'OTHER' as DeviceId)
    const bob = await login(store, NOW, BOB, 'BOBDEV' as DeviceId)
    await store.devices.track(client, [BOB])
    const run = new Run(open, [client, other, bob], seed * 7919)
    for (let n = 0; n < 40; n++) await run.#write()
    return run
  }

  close(): Promise<void> {
    return this.#open.close()
  }

  async step(): Promise<void> {
    const kind = this.#random(20)
    if (kind < 9) await this.#write()
    else if (kind === 9) this.#open = await this.#open.crash()
    else await this.#sync(this.#random(3) === 0)
  }

  /** Reads until nothing is new. */
  async catchUp(): Promise<void> {
    for (;;) {
      const { toDevice, accountData, position, lists } = await this.#sync(false)
      if (toDevice.length === 0 && accountData.length === 0 && position === lists) break
    }
    assert.deepEqual(this.#data, this.#written)
    assert.deepEqual(this.#received, this.#sent)
    assert.equal(this.#knownListChanges, this.#listChanges)
  }

  async #write(): Promise<void> {
    const { store } = this.#open
    const n = ++this.#number
    const text = 'x'.repeat(this.#random(300))
    const kind = this.#random(5)
    if (kind < 2) {
      const type = `org.example.${this.#random(8)}`
      const content = JSON.stringify({ n, text })
      await store.sync.putAccountData(this.#other, type, content)
      this.#written.set(type, content)
    } else if (kind < 4) {
      const event = JSON.stringify({ n, text })
      const { userId, deviceId } = this.#client
      await store.messages.send({
        session: this.#bob,
        transaction: `m.test ${n}`,
        messages: [{ userId, deviceId, event }],
        now: NOW,
      })
      this.#sent.push(event)
    } else {
      await store.devices.rename(this.#bob, this.#bob.deviceId, `name ${n}`)
      this.#listChanges++
    }
  }

  async #sync(isLost: boolean): Promise<SyncReading> {
    const { store } = this.#open
    const query = { confirms: true, everyoneFromBeginning: false, page: PAGE, mayWait: false }
    const token = this.#token
    const reading = await store.sync.read(this.#client, { ...query, ...(token && { token }) })
    if (isLost) return reading
    const { epoch, position, lists, toDevice, accountData, changedUsers } = reading
    assert.ok(toDevice.length <= PAGE.toDevicePerSync)
    const hasBob = token !== undefined && this.#listChanges > this.#knownListChanges
    assert.deepEqual(changedUsers, hasBob ? [BOB] : [], 'each change of a device list comes once')
    this.#token = { epoch, position, lists }
    this.#knownListChanges = this.#listChanges
    this.#received.push(...toDevice)
    for (const { type, content } of accountData) {
      assert.ok(numberOf(content) > numberOf(this.#data.get(type)), `${type} never becomes older`)
      this.#data.set(type, content)
    }
    if (position < lists) this.pages++
    return reading
  }

  #random(below: number): number {
    this.#seed = (this.#seed * 48_271) % 2_147_483_647
    return this.#seed % below
  }
}

function numberOf(content = '{"n":0}'): number {
  return (JSON.parse(content) as { n: number }).n
}
