/**
 * Whatever goes wrong between an SDK, its store, the ledger and the server, in whatever order: when it stops, within three
 * syncs the server offers nothing but keys whose private halves the SDK holds. PROPERTY_RUNS for more than a few seconds.
 */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { startTestServer } from '../../server/test/support/test-server.ts'
import type { ModelSdk, ModelState } from './support/guard-model-sdk.ts'
import { copyOf, type Scene, startScene } from './support/guard-scene.ts'
import type { Store } from '../src/store/store.ts'

const RUNS = Number(process.env['PROPERTY_RUNS'] ?? 15)
/** An SDK that keeps few keys meets an empty pool, and IDs that were issued, sooner. */
const TARGET = 8

const server = await startTestServer()
after(() => server[Symbol.asyncDispose]())

type Step =
  | { readonly do: 'claim'; readonly count: number }
  | { readonly do: 'round' | 'sync' | 'lose_answer' | 'lose_request' | 'twice' | 'overtaken_sync' }
  | { readonly do: 'back_up' | 'restore_sdk' | 'restore_both' | 'reload' }

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('claim' as const), count: fc.integer({ min: 1, max: 6 }) }),
  },
  { weight: 5, arbitrary: fc.constant({ do: 'round' as const }) },
  {
    weight: 5,
    arbitrary: fc.constantFrom<Step>(
      { do: 'sync' },
      { do: 'lose_answer' },
      { do: 'lose_request' },
      { do: 'twice' },
      { do: 'overtaken_sync' },
      { do: 'reload' },
    ),
  },
  {
    weight: 4,
    arbitrary: fc.constantFrom<Step>({ do: 'back_up' }, { do: 'restore_sdk' }, { do: 'restore_both' }),
  },
)

/** The net between guard and server, which loses and delays what it is told to. */
class Net {
  lose: 'answer' | 'request' | undefined
  meanwhile: (() => Promise<unknown>) | undefined

  readonly fetch = async (input: string | URL | Request, init?: RequestInit): Promise<Response> => {
    const url = input instanceof Request ? input.url : String(input)
    if (url.endsWith('/keys/upload') && init?.body !== '{}' && this.lose !== undefined) {
      const isSent = this.lose === 'answer'
      this.lose = undefined
      if (isSent) await (await fetch(input, init)).text()
      throw new TypeError('fetch failed')
    }
    const response = await fetch(input, init)
    if (!url.includes('/sync') || this.meanwhile === undefined) return response
    const { meanwhile } = this
    this.meanwhile = undefined
    const text = await response.text()
    await meanwhile()
    return new Response(text, { status: response.status })
  }
}

class World {
  readonly scene: Scene
  readonly net: Net
  sdk: ModelSdk
  restores = 0
  #store: Store
  #backup: { readonly state: ModelState; readonly store: Store }

  constructor(scene: Scene, net: Net) {
    this.scene = scene
    this.net = net
    this.sdk = scene.sdk
    this.#store = scene.store
    this.#backup = { state: scene.sdk.state, store: scene.store }
  }

  async take(step: Step): Promise<void> {
    const { sdk, net } = this
    switch (step.do) {
      case 'claim':
        for (let i = 0; i < step.count; i++) await this.claimOne()
        return
      case 'round':
        return this.round()
      case 'sync':
        await sdk.sync()
        return
      case 'lose_answer':
      case 'lose_request':
        await sdk.sync()
        net.lose = step.do === 'lose_answer' ? 'answer' : 'request'
        await sdk.upload().catch(() => undefined)
        net.lose = undefined
        return
      case 'twice':
        await sdk.upload({ loseAnswer: true })
        await sdk.upload()
        return
      case 'overtaken_sync':
        net.meanwhile = () => sdk.upload()
        await sdk.sync()
        return
      case 'back_up':
        this.#backup = { state: sdk.state, store: await copyOf(this.#store) }
        return
      case 'restore_sdk':
        this.restores++
        sdk.restore(this.#backup.state)
        return
      case 'restore_both':
        this.restores++
        return this.#open(await copyOf(this.#backup.store), this.#backup.state)
      case 'reload':
        return this.#open(this.#store, sdk.state)
    }
  }

  /** Somebody claims a key, if there is one. */
  claimOne(): Promise<void> {
    return this.scene.claim(1).catch(() => undefined)
  }

  async round(): Promise<void> {
    await this.sdk.sync()
    for (let i = 0; i < 3; i++) await this.sdk.upload()
  }

  #open(store: Store, state: ModelState): void {
    this.#store = store
    this.sdk = this.sdk.otherTab(this.scene.reopen({ store }))
    this.sdk.restore(state)
  }
}

let users = 0

test('after any faults, three syncs make the server offer only keys that the SDK can use', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 30 }), async (steps) => {
      const net = new Net()
      const budget = { healsPerDay: 200, pauseMs: 0 }
      const scene = await startScene(server.url, `p${users++}`, { fetch: net.fetch, target: TARGET, budget })
      const world = new World(scene, net)
      await world.round()
      await world.take({ do: 'back_up' })
      for (const one of steps) await world.take(one)
      for (let i = 0; i < 3; i++) {
        // A rollback of the SDK's store alone shows at an upload, and so somebody has to claim a key.
        await world.claimOne()
        await world.round()
      }
      assert.deepEqual(await world.sdk.orphans(), [])
      const pool = await world.sdk.session.ok('GET', '/unstable/dev.latchkey/keys/pool')
      assert.equal(pool.algorithms.signed_curve25519.available.length, TARGET)
      assert.deepEqual([scene.told('unguarded'), scene.told('not_healed')], [[], []])
      const heals = scene.told('healed').length
      assert.ok(heals <= 2 * world.restores, `${heals} heals for ${world.restores} restores`)
    }),
    { numRuns: RUNS },
  )
})
