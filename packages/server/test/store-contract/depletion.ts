/** When a store asks the depletion defence (pool/depletion.ts), and how it applies the answer. */
import { keyPools } from '@latchkey/testing/key-pools.ts'
import type { PoolHistoryStore } from '@latchkey/testing/memory-pool-store.ts'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Algorithm, DeviceId, UserId } from '@latchkey/protocol'
import { SIGNED_CURVE25519 } from '@latchkey/protocol'
import { ClaimBudgets, type DepletionDefence } from '../../src/pool/depletion.ts'
import type { UploadedKey } from '../../src/pool/key.ts'
import { DEFAULT_POOL_POLICY } from '../../src/pool/policy.ts'
import type { Claimer, ClaimTarget } from '../../src/pool/commands.ts'
import type { DeviceRef, Session } from '../../src/session.ts'
import type { OpenStore, StoreUnderTest } from './store-under-test.ts'
import { claimer, DEVICE, login, makeKey, poolStatus, USER } from './test-device.ts'

const TARGET: ClaimTarget = { userId: USER, deviceId: DEVICE, algorithm: SIGNED_CURVE25519 }

/** Always gives the same answers, and records what it was asked. */
class Recorder implements DepletionDefence {
  readonly asked: (Claimer & { device: DeviceRef; now: number })[] = []
  readonly #isWithin: boolean

  constructor(isWithin: boolean) {
    this.#isWithin = isWithin
  }

  takesOneTimeKey(who: Claimer, device: DeviceRef, now: number): boolean {
    this.asked.push({ ...who, device, now })
    return this.#isWithin
  }

  takesOfReserve(): boolean {
    return false
  }
}

const FALLBACK = [makeKey(SIGNED_CURVE25519, 'F', 1000)]

/** Logs the target device in and fills its pool. */
async function fill(
  store: PoolHistoryStore,
  count: number,
  fallbackKeys: readonly UploadedKey[] = [],
): Promise<Session> {
  const session = await login(store, 0)
  const oneTimeKeys = Array.from({ length: count }, (_, n) => makeKey(SIGNED_CURVE25519, `K${n}`, n))
  await keyPools(store).upload({ session, oneTimeKeys, fallbackKeys, now: 0 })
  return session
}

/** The kinds of keys that a claimer gets, by their numbers. */
async function claimMany(store: PoolHistoryStore, who: Claimer, tries: number, now = 1): Promise<object> {
  const kinds = { one_time_key: 0, fallback: 0, withheld: 0, none: 0 }
  for (let n = 0; n < tries; n++) {
    const [key] = await store.pools.claim({ claimer: who, targets: [TARGET], now })
    if (key === undefined) kinds.none++
    else if (key === null) kinds.withheld++
    else kinds[key.fallback ? 'fallback' : 'one_time_key']++
  }
  return Object.fromEntries(Object.entries(kinds).filter(([, n]) => n > 0))
}

const ACCOUNTS = Array.from({ length: 10 }, (_, n) => claimer(`flooder${n}`))
const HONEST = Array.from({ length: 19 }, (_, n) => claimer(`honest${n}`))

export function testDepletion(under: StoreUnderTest<PoolHistoryStore>): void {
  test(`a ${under.name} store asks the defence once for each one-time key to issue, and for nothing else`, async () => {
    const defence = new Recorder(true)
    const open = await under.open(DEFAULT_POOL_POLICY, defence)
    try {
      const pools = keyPools(open.store)
      const session = await login(open.store, 0)
      const onlyFallback = 'fallback_only' as Algorithm
      await pools.upload({
        session,
        oneTimeKeys: [makeKey(SIGNED_CURVE25519, 'A', 1)],
        fallbackKeys: [makeKey(SIGNED_CURVE25519, 'F', 2), makeKey(onlyFallback, 'F', 3)],
        now: 1,
      })
      const targets: ClaimTarget[] = [
        TARGET,
        { ...TARGET, algorithm: onlyFallback },
        { ...TARGET, algorithm: 'unknown' as Algorithm },
        { ...TARGET, deviceId: 'UNKNOWN' as DeviceId },
        { ...TARGET, userId: '@unknown:test.example' as UserId },
      ]
      const bob = claimer('bob')
      const first = await pools.claim({ claimer: bob, targets, now: 2 })
      assert.deepEqual(
        first.map((key) => key?.keyId as string | undefined),
        ['A', 'F', undefined, undefined, undefined],
      )
      assert.deepEqual(defence.asked, [{ ...bob, device: session.deviceRef, now: 2 }])
      const [emptied] = await pools.claim({ claimer: bob, targets: [TARGET], now: 3 })
      assert.deepEqual([emptied?.fallback, emptied?.rateLimited], [true, false])
      assert.equal(defence.asked.length, 1)
    } finally {
      await open.close()
    }
  })

  const withStore = async (
    defence: DepletionDefence,
    run: (open: OpenStore<PoolHistoryStore>) => Promise<OpenStore<PoolHistoryStore> | void>,
  ): Promise<void> => {
    const open = await under.open(DEFAULT_POOL_POLICY, defence)
    await ((await run(open)) ?? open).close()
  }
  const budgets = (): ClaimBudgets => new ClaimBudgets({ burst: 5, perSecond: 1e-9 })

  test(`ten accounts that flood a device leave its one-time keys to 19 others on a ${under.name} store`, async () => {
    await withStore(budgets(), async ({ store }) => {
      await fill(store, 100, FALLBACK)
      for (const who of ACCOUNTS)
        assert.deepEqual(await claimMany(store, who, 12), { one_time_key: 5, fallback: 7 })
      for (const who of HONEST) assert.deepEqual(await claimMany(store, who, 1), { one_time_key: 1 })
    })
  })

  test(`one account leaves the reserve of a device without a fallback key on a ${under.name} store`, async () => {
    await withStore(budgets(), async ({ store }) => {
      await fill(store, 100)
      assert.deepEqual(await claimMany(store, claimer('eve'), 110), { one_time_key: 80, withheld: 30 })
      for (const who of HONEST) assert.deepEqual(await claimMany(store, who, 1), { one_time_key: 1 })
      assert.deepEqual(await claimMany(store, claimer('late'), 2), { one_time_key: 1, none: 1 })
    })
  })

  test(`ten accounts over their budgets leave the reserve on a ${under.name} store`, async () => {
    await withStore(budgets(), async ({ store }) => {
      await fill(store, 100)
      for (const who of ACCOUNTS) assert.deepEqual(await claimMany(store, who, 5), { one_time_key: 5 })
      for (const who of ACCOUNTS.slice(0, 6))
        assert.deepEqual(await claimMany(store, who, 5), { one_time_key: 5 })
      for (const who of ACCOUNTS) assert.deepEqual(await claimMany(store, who, 3), { withheld: 3 })
      for (const who of HONEST) assert.deepEqual(await claimMany(store, who, 1), { one_time_key: 1 })
    })
  })

  test(`another server has ten times the budget, and gets keys of a reserve slowly, on a ${under.name} store`, async () => {
    const server = { by: 'server', id: 'remote.example', name: 'remote.example' } as const
    await withStore(budgets(), async ({ store }) => {
      await fill(store, 100)
      assert.deepEqual(await claimMany(store, server, 85), { one_time_key: 81, withheld: 4 })
      assert.deepEqual(await claimMany(store, { ...server, id: 'b.example' }, 2), { one_time_key: 2 })
      assert.deepEqual(await claimMany(store, server, 3, 60_001), { one_time_key: 1, withheld: 2 })
      assert.deepEqual(await claimMany(store, claimer('bob'), 1), { one_time_key: 1 })
    })
  })

  test(`the reserve of a ${under.name} store is a fifth of the count after the last upload, across a crash`, async () => {
    await withStore(new Recorder(false), async (first) => {
      const session = await fill(first.store, 100)
      assert.deepEqual(await claimMany(first.store, claimer('eve'), 50), { one_time_key: 50 })
      const open = await first.crash()
      const { store } = open
      assert.deepEqual(await claimMany(store, claimer('eve'), 40), { one_time_key: 30, withheld: 10 })
      // A fallback key is not a refill, and while it is there no reserve is needed.
      const pools = keyPools(store)
      await pools.upload({ session, oneTimeKeys: [], fallbackKeys: FALLBACK, now: 2 })
      assert.deepEqual(await claimMany(store, claimer('eve'), 1), { fallback: 1 })
      const more = Array.from({ length: 20 }, (_, n) => makeKey(SIGNED_CURVE25519, `M${n}`, 2000 + n))
      await pools.reset({
        session,
        withdrawal: { all: true },
        oneTimeKeys: more.map((key) => ({ ...key, algorithm: 'plain' as Algorithm })),
        fallbackKeys: [],
        now: 3,
      })
      const targets = [{ ...TARGET, algorithm: 'plain' as Algorithm }]
      const claims = Array.from({ length: 20 }, () => ({ claimer: claimer('eve'), targets, now: 4 }))
      const kinds: unknown[] = []
      for (const command of claims) kinds.push((await store.pools.claim(command))[0] === null)
      assert.equal(kinds.filter(Boolean).length, 5, 'a reserve of 5 of 20')
      return open
    })
  })

  test(`a withheld key changes nothing of a ${under.name} store`, async () => {
    await withStore(new Recorder(false), async ({ store }) => {
      const session = await fill(store, 5)
      const before = await poolStatus(store, session)
      assert.deepEqual(await claimMany(store, claimer('eve'), 3), { withheld: 3 })
      assert.deepEqual(await poolStatus(store, session), before)
    })
  })

  test(`a ${under.name} store over budget returns the fallback key`, async () => {
    await withStore(new Recorder(false), async ({ store }) => {
      await fill(store, 1, FALLBACK)
      const keys = await store.pools.claim({ claimer: claimer('eve'), targets: [TARGET], now: 2 })
      assert.deepEqual(
        keys.map((key) => key && [key.keyId as string, key.fallback, key.rateLimited]),
        [['F', true, true]],
      )
    })
  })
}
