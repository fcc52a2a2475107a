/** Concurrent claims: each key once, in order, and no false miss (key-pool.md invariants). */
import { keyPools } from '@latchkey/testing/key-pools.ts'
import type { PoolHistoryStore } from '@latchkey/testing/memory-pool-store.ts'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SIGNED_CURVE25519 } from '@latchkey/protocol'
import { DEFAULT_POOL_POLICY } from '../../src/pool/policy.ts'
import type { ClaimCommand } from '../../src/pool/commands.ts'
import type { StoreUnderTest } from './store-under-test.ts'
import { claimer, DEVICE, login, makeKey, USER } from './test-device.ts'

export function testConcurrentClaims(under: StoreUnderTest<PoolHistoryStore>): void {
  test(`200 concurrent claims of 50 keys in a ${under.name} store get 50 distinct keys, then the fallback key`, async () => {
    const open = await under.open(DEFAULT_POOL_POLICY)
    try {
      const pools = keyPools(open.store)
      const session = await login(open.store, 0)
      const oneTimeKeys = Array.from({ length: 50 }, (_, i) =>
        makeKey('signed_curve25519', `K${String(i).padStart(2, '0')}`, i),
      )
      const fallbackKeys = [makeKey('signed_curve25519', 'FALLBACK', 1000)]
      await pools.upload({ session, oneTimeKeys, fallbackKeys, now: 1 })
      const claim = (n: number): ClaimCommand => ({
        claimer: claimer(`claimer${n}`),
        targets: [{ userId: USER, deviceId: DEVICE, algorithm: SIGNED_CURVE25519 }],
        now: 2,
      })
      const answers = await Promise.all(Array.from({ length: 200 }, (_, n) => pools.claim(claim(n))))
      const ids = answers.map(([key]) => (key?.fallback ? 'FALLBACK' : key?.keyId))
      assert.deepEqual(
        ids.filter((id) => id !== 'FALLBACK').toSorted(),
        oneTimeKeys.map((key) => key.keyId as string),
      )
      assert.equal(ids.filter((id) => id === 'FALLBACK').length, 150)
      const reopened = await open.crash()
      const { pools: after } = await reopened.store.pools.inspect(session, { limit: 1000 })
      assert.equal(after[0]?.available.length, 0)
      assert.equal(after[0]?.issued.length, 50)
      assert.equal(after[0]?.fallback?.issueCount, 150)
      await reopened.close()
    } catch (error) {
      await open.close().catch(() => {})
      throw error
    }
  })
}
