/**
 * A change whose transaction fails after its decision and runs again (pool/port.ts): the answer and the pools are
 * those of a change that ran once, and the rate limit of resets is charged once.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { KeyName, UserId } from '@latchkey/protocol'
import { SIGNED_CURVE25519 } from '@latchkey/protocol'
import { TokenBuckets } from '../../src/lib/token-bucket.ts'
import { MatrixError } from '../../src/matrix-error.ts'
import { KeyPools } from '../../src/pool/key-pools.ts'
import { DEFAULT_POOL_POLICY, type PoolPolicy } from '../../src/pool/policy.ts'
import type { Decide, Decision, PoolStore, WantedFacts } from '../../src/pool/port.ts'
import type { Session } from '../../src/session.ts'
import type { Store } from '../../src/store.ts'
import { DEVICE, identity, login, makeKey } from './test-device.ts'

export type RerunningStore = {
  readonly store: Store
  /** Makes the transaction of a change fail once after its decision, in a way after which the store runs it again. */
  readonly rerun: <T>(change: () => Promise<T>) => Promise<T>
  readonly close: () => Promise<void>
}

const POLICY: PoolPolicy = { ...DEFAULT_POOL_POLICY, onConflict: 'heal', keysPerPool: 3 }
const NOW = 1_700_000_000_000
const RESETS = 2

/** The pools of a store; counts how often decisions run. */
class CountedDecisions implements PoolStore {
  readonly #store: PoolStore
  count = 0

  constructor(store: PoolStore) {
    this.#store = store
  }

  change<Answer>(session: Session, wanted: WantedFacts, decide: Decide<Answer>): Promise<Decision<Answer>> {
    return this.#store.change(session, wanted, (facts) => {
      this.count++
      return decide(facts)
    })
  }

  claim(...args: Parameters<PoolStore['claim']>): ReturnType<PoolStore['claim']> {
    return this.#store.claim(...args)
  }

  inspect(...args: Parameters<PoolStore['inspect']>): ReturnType<PoolStore['inspect']> {
    return this.#store.inspect(...args)
  }
}

type Request = (pools: KeyPools, session: Session) => Promise<unknown>

function keysOf(text: string): ReturnType<typeof makeKey>[] {
  return text
    .split(' ')
    .filter((id) => id !== '')
    .map((id) => makeKey(SIGNED_CURVE25519, id[0] ?? '', id.charCodeAt(id.length - 1)))
}

function upload(
  keys: string,
  now: number,
  rest: { readonly identity?: number; readonly fallback?: string } = {},
): Request {
  return (pools, session) =>
    pools.upload({
      session,
      oneTimeKeys: keysOf(keys),
      fallbackKeys: keysOf(rest.fallback ?? ''),
      ...(rest.identity !== undefined && { deviceKeys: identity(rest.identity).deviceKeys }),
      now,
    })
}

function reset(names: 'all' | readonly string[], keys: string, requestId: string): Request {
  const withdrawal =
    names === 'all'
      ? { all: true as const }
      : { all: false as const, names: names.map((id) => `${SIGNED_CURVE25519}:${id}` as KeyName) }
  return (pools, session) =>
    pools.reset({
      session,
      withdrawal,
      requestId,
      oneTimeKeys: keysOf(keys),
      fallbackKeys: [],
      now: NOW + 10,
    })
}

/** In this order. Each changes what the store has, also the refusal: it is remembered. */
const REQUESTS: readonly (readonly [name: string, request: Request])[] = [
  [
    'an upload of device keys, one-time keys and a fallback key',
    upload('A B', NOW, { identity: 0, fallback: 'F' }),
  ],
  ['an upload that evicts keys, with another fallback key', upload('C D', NOW, { fallback: 'G' })],
  ['the first try of a conflicting upload', upload('Cx', NOW + 1)],
  ['the second try, which heals', upload('Cx', NOW + 3_000)],
  ['a reset of all with replacements', reset('all', 'E', 'one')],
  ['a reset of one key', reset(['E'], '', 'two')],
  ['a change of identity', upload('', NOW, { identity: 1 })],
]
async function answerOf(request: Promise<unknown>): Promise<unknown> {
  return request.catch((error: unknown) => {
    if (error instanceof MatrixError) return { refused: error.status, ...error.body() }
    throw error
  })
}

async function resetsLeft(pools: KeyPools, session: Session): Promise<number> {
  for (let n = 0; ; n++) {
    const answer = await answerOf(reset('all', '', `more ${n}`)(pools, session))
    if (answer instanceof Object && 'refused' in answer) return n
  }
}

export function testForcedRerun(name: string, open: (policy: PoolPolicy) => Promise<RerunningStore>): void {
  test(`a change that a ${name} store runs twice answers, stores and charges as one that ran once`, async () => {
    const { store, rerun, close } = await open(POLICY)
    try {
      const counted = new CountedDecisions(store.pools)
      const resetsPerDevice = new TokenBuckets({ burst: RESETS + 1, perSecond: 1e-9 })
      const pools = new KeyPools(counted, { policy: POLICY, resetsPerDevice })
      const once = await login(store, NOW, '@once:test.example' as UserId, DEVICE)
      const twice = await login(store, NOW, '@twice:test.example' as UserId, DEVICE)
      for (const [what, request] of REQUESTS) {
        counted.count = 0
        const expected = await answerOf(request(pools, once))
        const runs = counted.count
        assert.deepEqual(await rerun(() => answerOf(request(pools, twice))), expected, what)
        assert.equal(counted.count, 2 * runs + 1, `${what}: one more run`)
        const [seen, ...others] = await Promise.all(
          [twice, once].map((session) => store.pools.inspect(session, { limit: 10 })),
        )
        assert.deepEqual([seen], others, what)
      }
      assert.deepEqual([await resetsLeft(pools, once), await resetsLeft(pools, twice)], [1, 1])
    } finally {
      await close()
    }
  })
}
