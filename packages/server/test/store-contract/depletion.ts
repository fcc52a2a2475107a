/** When a store asks the depletion defence (pool/depletion.ts), and how it applies the answer. */
import { keyPools } from '@latchkey/testing/key-pools.ts'
import type { PoolHistoryStore } from '@latchkey/testing/memory-pool-store.ts'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Algorithm, DeviceId, UserId } from '@latchkey/protocol'
import { SIGNED_CURVE25519 } from '@latchkey/protocol'
import type { DepletionDefence } from '../../src/pool/depletion.ts'
import { DEFAULT_POOL_POLICY } from '../../src/pool/policy.ts'
import type { ClaimTarget } from '../../src/pool/commands.ts'
import type { DeviceRef } from '../../src/session.ts'
import type { StoreUnderTest } from './store-under-test.ts'
import { claimer, DEVICE, login, makeKey, poolStatus, USER } from './test-device.ts'

const TARGET: ClaimTarget = { userId: USER, deviceId: DEVICE, algorithm: SIGNED_CURVE25519 }

/** Always gives the same answer, and records what it was asked. */
class Recorder implements DepletionDefence {
  readonly asked: { user: UserId; origin: string; device: DeviceRef; now: number }[] = []
  readonly #answer: boolean

  constructor(answer: boolean) {
    this.#answer = answer
  }

  takesOneTimeKey(
    { user, origin }: { user: UserId; origin: string },
    device: DeviceRef,
    now: number,
  ): boolean {
    this.asked.push({ user, origin, device, now })
    return this.#answer
  }
}

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
      assert.deepEqual(defence.asked, [
        { user: bob.user, origin: bob.origin, device: session.deviceRef, now: 2 },
      ])
      const [emptied] = await pools.claim({ claimer: bob, targets: [TARGET], now: 3 })
      assert.deepEqual([emptied?.fallback, emptied?.rateLimited], [true, false])
      assert.equal(defence.asked.length, 1)
    } finally {
      await open.close()
    }
  })

  test(`a ${under.name} store over budget returns the fallback key, or the one-time key if there is none`, async () => {
    const open = await under.open(DEFAULT_POOL_POLICY, new Recorder(false))
    try {
      const pools = keyPools(open.store)
      const session = await login(open.store, 0)
      const plain = 'plain' as Algorithm
      await pools.upload({
        session,
        oneTimeKeys: [makeKey(SIGNED_CURVE25519, 'A', 1), makeKey(plain, 'B', 2)],
        fallbackKeys: [makeKey(SIGNED_CURVE25519, 'F', 3)],
        now: 1,
      })
      const targets = [TARGET, { ...TARGET, algorithm: plain }]
      const keys = await pools.claim({ claimer: claimer('eve'), targets, now: 2 })
      assert.deepEqual(
        keys.map((key) => key && [key.keyId as string, key.fallback, key.rateLimited]),
        [
          ['F', true, true],
          ['B', false, false],
        ],
      )
      const status = await poolStatus(open.store, session)
      assert.deepEqual(
        status.algorithms.map(({ count }) => count),
        [0, 1],
      )
    } finally {
      await open.close()
    }
  })
}
