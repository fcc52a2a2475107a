/**
 * Property: uploads, claims, resets, identity changes, removals and crashes happen in any order, alone or concurrently;
 * the store answers as the model does, and the device reads the pools that the model holds. Concurrent operations must
 * have the effect of some sequence: the order of submission if the store promises that, else any order. Then each order
 * that explains all answers so far is kept as a model of its own.
 */
import { keyPools } from '@latchkey/testing/key-pools.ts'
import type { PoolHistoryStore } from '@latchkey/testing/memory-pool-store.ts'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { KeyName } from '@latchkey/protocol'
import { MatrixError } from '../../src/matrix-error.ts'
import type { DepletionDefence } from '../../src/pool/depletion.ts'
import type { KeyPools } from '../../src/pool/key-pools.ts'
import { DEFAULT_POOL_POLICY, type PoolPolicy } from '../../src/pool/policy.ts'
import type { PoolInspection } from '../../src/pool/commands.ts'
import type { UploadedKey } from '../../src/pool/key.ts'
import type { Session } from '../../src/session.ts'
import { ModelDevice, type ModelKey, type ModelOutcome } from './pool-model.ts'
import type { OpenStore, StoreUnderTest } from './store-under-test.ts'
import { claimer, DEVICE, identity, login, makeKey, poolStatus, USER } from './test-device.ts'

const ALGORITHMS = ['curve25519', 'signed_curve25519'] as const
// Base64 order, code-point order and creation order all differ among these.
const IDS = ['AAAAHg', 'AAAAAQ', 'AAAAAA', '0', 'a', 'Z', '\u{1F511}', '\uFFFD']
const MATERIALS = 12
/** Claimers by what they have left of their budget, and of the keys of a reserve. */
const CLAIMERS = {
  within: claimer('bob'),
  over: claimer('drainer'),
  reserve: { by: 'server', id: 'remote.example', name: 'remote.example' },
} as const
const depletion: DepletionDefence = {
  takesOneTimeKey: ({ id }) => id === CLAIMERS.within.id,
  takesOfReserve: ({ id }) => id === CLAIMERS.reserve.id,
}
/** Histories per policy, unless PROPERTY_RUNS says otherwise. */
const RUNS = 30
/** The same histories each time, if PROPERTY_SEED is set. */
const SEED = process.env['PROPERTY_SEED']

type KeyPick = {
  readonly algorithm: string
  readonly id: string
  readonly material: number
  readonly signer: number
}
type Operation =
  | {
      readonly type: 'upload'
      readonly identity: number | undefined
      readonly keys: KeyPick[]
      readonly fallbacks: KeyPick[]
      readonly stale: boolean
    }
  | {
      readonly type: 'reset'
      readonly all: boolean
      readonly names: string[]
      readonly keys: KeyPick[]
      readonly fallbacks: KeyPick[]
      readonly stale: boolean
    }
  | { readonly type: 'claim'; readonly algorithms: string[]; readonly budget: keyof typeof CLAIMERS }
  | { readonly type: 'remove' }
/** `again`: repeats the last upload, as a stuck client does; `again soon`: as a stray duplicate does. */
type Step =
  | { readonly wait: number; readonly operations: Operation[] }
  | 'crash'
  | 'login'
  | 'again'
  | 'again soon'

const key = fc.record({
  algorithm: fc.constantFrom(...ALGORITHMS),
  id: fc.constantFrom(...IDS),
  material: fc.nat(MATERIALS - 1),
  signer: fc.nat(3),
})
const anyKeys = fc.uniqueArray(key, { maxLength: 6, selector: (k) => `${k.algorithm}:${k.id}` })
const anyFallbacks = fc.uniqueArray(key, { maxLength: 2, selector: (k) => k.algorithm })
const anyStale = fc.nat(9).map((n) => n === 0)
const anyOperation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      type: fc.constant('upload' as const),
      identity: fc.option(fc.nat(2), { nil: undefined, freq: 2 }),
      keys: anyKeys,
      fallbacks: anyFallbacks,
      stale: anyStale,
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      type: fc.constant('claim' as const),
      algorithms: fc.subarray([...ALGORITHMS], { minLength: 1 }),
      budget: fc.constantFrom('within', 'within', 'within', 'within', 'over', 'reserve'),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('reset' as const),
      all: fc.boolean(),
      names: fc.array(
        fc.tuple(fc.constantFrom(...ALGORITHMS), fc.constantFrom(...IDS)).map(([a, id]) => `${a}:${id}`),
        { maxLength: 4 },
      ),
      keys: anyKeys,
      fallbacks: anyFallbacks,
      stale: anyStale,
    }),
  },
  { weight: 1, arbitrary: fc.constant({ type: 'remove' as const }) },
)
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 12,
      arbitrary: fc.record({
        wait: fc.nat(3000),
        operations: fc.array(anyOperation, { minLength: 1, maxLength: 4 }),
      }),
    },
    { weight: 1, arbitrary: fc.constant('crash' as const) },
    { weight: 4, arbitrary: fc.constantFrom('again' as const, 'again soon' as const) },
    { weight: 2, arbitrary: fc.constant('login' as const) },
  ),
  { minLength: 1, maxLength: 25 },
)

export function testPoolAgainstModel(under: StoreUnderTest<PoolHistoryStore>, runs = RUNS): void {
  const numRuns = Number(process.env['PROPERTY_RUNS'] ?? runs)
  const policies: [string, Partial<PoolPolicy>][] = [
    ['rejecting conflicts, in upload order', { onConflict: 'reject' }],
    ['healing conflicts, in upload order', { onConflict: 'heal' }],
    ['rejecting conflicts, in key ID order', { onConflict: 'reject', claimOrder: 'key_id' }],
  ]
  for (const [name, part] of policies) {
    test(`the pools of a ${under.name} store behave as the model, ${name}`, async () => {
      const policy = { ...DEFAULT_POOL_POLICY, keysPerPool: 5, healsPerDeviceAndDay: 0, ...part }
      await fc.assert(
        fc.asyncProperty(steps, async (run) => {
          const history = await History.begin(under, policy)
          try {
            for (const step of run) await history.take(step)
          } finally {
            await history.end()
          }
        }),
        { numRuns, ...(SEED !== undefined && { seed: Number(SEED) }) },
      )
    })
  }
}

/** A submitted operation: its answer, and the answer of a model. */
type Submitted = { readonly answer: Promise<unknown>; readonly expect: (model: ModelDevice) => unknown }

class History {
  readonly #under: StoreUnderTest<PoolHistoryStore>
  /** Every past that explains what was seen; one, when operations keep the order of their submission. */
  #models: ModelDevice[]
  #open: OpenStore<PoolHistoryStore>
  /** One for all requests, as in a server; a crash ends it. */
  #keyPools: KeyPools
  #session: Session
  #formerSession: Session
  /** Another device of the user, which removes the one under test. */
  readonly #remover: Session
  readonly #policy: PoolPolicy
  #now = 1_700_000_000_000
  readonly #issued = new Set<string>()
  #lastUpload: Operation | undefined

  static async begin(under: StoreUnderTest<PoolHistoryStore>, policy: PoolPolicy): Promise<History> {
    const open = await under.open(policy, depletion)
    const remover = await login(open.store, 0, USER, 'REMOVER' as typeof DEVICE)
    return new History(under, open, await login(open.store, 0), remover, policy)
  }

  private constructor(
    under: StoreUnderTest<PoolHistoryStore>,
    open: OpenStore<PoolHistoryStore>,
    session: Session,
    remover: Session,
    policy: PoolPolicy,
  ) {
    this.#under = under
    this.#open = open
    this.#keyPools = keyPools(open.store, policy)
    this.#session = session
    this.#formerSession = session
    this.#remover = remover
    this.#policy = policy
    const heal = policy.onConflict === 'heal'
    const byKeyId = policy.claimOrder === 'key_id'
    this.#models = [new ModelDevice({ heal, byKeyId, cap: policy.keysPerPool })]
  }

  async end(): Promise<void> {
    await this.#open.close()
  }

  get #exists(): boolean {
    return this.#models.every((model) => model.exists)
  }

  async take(step: Step): Promise<void> {
    if (step === 'crash') {
      this.#open = await this.#open.crash()
      this.#keyPools = keyPools(this.#open.store, this.#policy)
    } else if (step === 'login') await this.#login()
    else if (step === 'again' || step === 'again soon') {
      const wait = step === 'again' ? 2_500 : 500
      if (this.#lastUpload !== undefined) await this.take({ wait, operations: [this.#lastUpload] })
      return
    } else {
      this.#now += step.wait
      await this.#run(step.operations)
    }
    if (this.#exists) await this.#compare()
  }

  async #login(): Promise<void> {
    this.#formerSession = this.#session
    this.#session = await login(this.#open.store, this.#now)
    if (this.#exists) return
    for (const model of this.#models) model.revive()
  }

  /**
   * Submits operations together, so that a store may put them into one commit, and finds the orders that explain them.
   */
  async #run(operations: readonly Operation[]): Promise<void> {
    const submitted = operations.map((operation) => this.#submit(operation))
    const answers = await Promise.all(submitted.map(({ answer }) => answer))
    const indices = submitted.map((_, i) => i)
    const explain = (orders: readonly number[][]): void =>
      this.#keepModels((model) =>
        orders.map((order) => () => {
          const after = model.copy()
          const expected: unknown[] = []
          for (const i of order) expected[i] = submitted[i]?.expect(after)
          assert.deepEqual(answers, expected)
          return after
        }),
      )
    if (!this.#under.prefersSubmissionOrder) explain(permutations(indices))
    else {
      try {
        explain([indices])
      } catch {
        explain(permutations(indices))
      }
    }
    if (this.#exists) await this.#compare()
  }

  /**
   * Replaces the models by the results of `next`. A model that throws is dropped; if none is left, throws the first
   * error.
   */
  #keepModels(next: (model: ModelDevice) => readonly (() => ModelDevice)[]): void {
    const kept = new Map<string, ModelDevice>()
    let refutation: unknown
    for (const attempt of this.#models.flatMap(next)) {
      try {
        const model = attempt()
        kept.set(model.state(), model)
      } catch (error) {
        refutation ??= error
      }
    }
    if (kept.size === 0) throw refutation
    this.#models = [...kept.values()]
  }

  /** Starts an operation. */
  #submit(operation: Operation): Submitted {
    const { store } = this.#open
    const now = this.#now
    switch (operation.type) {
      case 'remove': {
        const answer = store.devices.remove(this.#remover, [DEVICE], now)
        return { answer, expect: (model) => model.remove() }
      }
      case 'claim': {
        const targets = operation.algorithms.map((algorithm) => ({
          userId: USER,
          deviceId: DEVICE,
          algorithm: algorithm as UploadedKey['algorithm'],
        }))
        const who = CLAIMERS[operation.budget]
        const answer = store.pools.claim({ claimer: who, targets, now }).then((claimed) => {
          for (const [i, k] of claimed.entries()) {
            if (k === undefined || k === null || k.fallback) continue
            const id = `${operation.algorithms[i]} ${JSON.parse(k.json).key}`
            assert.ok(!this.#issued.has(id), `issued twice: ${id}`)
            this.#issued.add(id)
          }
          return claimed.map((k) => k && { json: k.json, rateLimited: k.rateLimited })
        })
        return {
          answer,
          expect: (model) =>
            operation.algorithms.map((algorithm) => model.claim(algorithm, operation.budget)),
        }
      }
      case 'upload': {
        this.#lastUpload = operation
        const who = operation.identity === undefined ? undefined : identity(operation.identity)
        const keys = operation.keys.map(toKeys)
        const fallbackKeys = operation.fallbacks.map(toKeys)
        const { session, isStale } = this.#sessionFor(operation.stale)
        const command = {
          session,
          ...(who && { deviceKeys: who.deviceKeys }),
          oneTimeKeys: keys.map(([, k]) => k),
          fallbackKeys: fallbackKeys.map(([, k]) => k),
          now,
        }
        const answer = this.#keyPools.upload(command).then((r) => ({
          outcomes: Object.fromEntries(r.outcomes),
          fallbackOutcomes: Object.fromEntries(r.fallbackOutcomes),
          storedAs: Object.fromEntries(r.storedAs),
          evicted: r.evicted.toSorted(),
        }))
        return {
          answer: orRefusal(answer),
          expect: (model) =>
            isStale
              ? { refused: 401 }
              : sorted(
                  model.upload({
                    ...(who && { identity: who.name }),
                    keys: keys.map(([k]) => k),
                    fallbacks: fallbackKeys.map(([k]) => k),
                    now,
                  }),
                ),
        }
      }
      case 'reset': {
        const keys = operation.keys.map(toKeys)
        const fallbackKeys = operation.fallbacks.map(toKeys)
        const { session, isStale } = this.#sessionFor(operation.stale)
        const command = {
          session,
          withdrawal: operation.all
            ? { all: true as const }
            : { all: false as const, names: operation.names as KeyName[] },
          oneTimeKeys: keys.map(([, k]) => k),
          fallbackKeys: fallbackKeys.map(([, k]) => k),
          now,
        }
        const answer = this.#keyPools.reset(command).then((r) => ({
          outcomes: Object.fromEntries(r.outcomes),
          fallbackOutcomes: Object.fromEntries(r.fallbackOutcomes),
          storedAs: Object.fromEntries(r.storedAs),
          evicted: r.evicted.toSorted(),
          withdrawn: r.withdrawn,
          absent: r.absent,
        }))
        return {
          answer: orRefusal(answer),
          expect: (model) =>
            isStale
              ? { refused: 401 }
              : sorted(
                  model.reset({
                    all: operation.all,
                    names: operation.names,
                    keys: keys.map(([k]) => k),
                    fallbacks: fallbackKeys.map(([k]) => k),
                    now,
                  }),
                ),
        }
      }
    }
  }

  #sessionFor(stale: boolean): { session: Session; isStale: boolean } {
    const isStale = stale && this.#formerSession !== this.#session
    return { session: isStale ? this.#formerSession : this.#session, isStale }
  }

  /** Compares counts, digests, order, fallback state, version and generation, as the device reads them. */
  async #compare(): Promise<void> {
    const { store } = this.#open
    const seen = await store.pools.inspect(this.#session, { limit: 1000 })
    assert.deepEqual(seen.status, await poolStatus(store, this.#session))
    this.#keepModels((model) => [
      () => {
        requireSame(model, seen)
        return model
      },
    ])
  }
}

/** The device reads its pools as the model has them. */
function requireSame(model: ModelDevice, { status, pools }: PoolInspection): void {
  for (const algorithm of ALGORITHMS) {
    const expected = model.inIssueOrder(algorithm)
    const seen = pools.find((p) => p.algorithm === algorithm)
    const standing = status.algorithms.find((a) => a.algorithm === algorithm)
    assert.deepEqual(
      (seen?.available ?? []).map((k) => k.keyId as string),
      expected.map((k) => k.id),
    )
    assert.equal(standing?.count ?? 0, expected.length)
    if (standing !== undefined) assert.equal(standing.digest, model.digest(algorithm))
    const fallback = model.pools.get(algorithm)?.fallback
    assert.equal(standing?.fallback?.used, fallback?.used)
    assert.equal(seen?.fallback?.issueCount, fallback?.issueCount)
    assert.equal(seen?.fallback?.keyId, fallback?.id)
  }
  const { version, generation } = status
  assert.deepEqual({ version, generation }, { version: model.version, generation: model.generation })
}

function toKeys(picked: KeyPick): [ModelKey, UploadedKey] {
  const signer = picked.signer === 3 ? undefined : identity(picked.signer)
  const uploaded = makeKey(picked.algorithm, picked.id, picked.material, signer)
  const { algorithm, keyId: id, material, json } = uploaded
  return [{ algorithm, id, material, json, ...(signer && { signedBy: signer.name }) }, uploaded]
}

async function orRefusal(answer: Promise<object>): Promise<object> {
  return answer.catch((error: unknown) => {
    if (error instanceof MatrixError) return { refused: error.status }
    throw error
  })
}

/** The set of evicted keys matters, their order does not. */
function sorted(outcome: ModelOutcome): object {
  return 'refused' in outcome ? outcome : { ...outcome, evicted: outcome.evicted.toSorted() }
}

function permutations(of: readonly number[]): number[][] {
  if (of.length === 0) return [[]]
  return of.flatMap((first) => permutations(of.filter((i) => i !== first)).map((rest) => [first, ...rest]))
}
