/** Daily budgets (pool/daily-budget.ts): of a user across device IDs, and of heals; over crashes and at once. */
import { keyPools } from '@latchkey/testing/key-pools.ts'
import type { PoolHistoryStore } from '@latchkey/testing/memory-pool-store.ts'
import { type DeviceId, SIGNED_CURVE25519, utf8Length } from '@latchkey/protocol'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BudgetError } from '../../src/pool/daily-budget.ts'
import type { UploadedKey } from '../../src/pool/key.ts'
import { DEFAULT_POOL_POLICY, type PoolPolicy } from '../../src/pool/policy.ts'
import type { Session } from '../../src/session.ts'
import type { OpenStore, StoreUnderTest } from './store-under-test.ts'
import { login, makeKey, USER } from './test-device.ts'

const NOW = 1_700_000_000_000
const DAY_MS = 24 * 60 * 60 * 1000

function batch(from: number, count: number): UploadedKey[] {
  return Array.from({ length: count }, (_, i) => makeKey(SIGNED_CURVE25519, `K${from + i}`, from + i))
}

function bytesOf(keys: readonly UploadedKey[]): number {
  return keys.reduce((sum, { keyId, json }) => sum + utf8Length(keyId) + utf8Length(json), 0)
}

export function testDailyBudgets(under: StoreUnderTest<PoolHistoryStore>): void {
  /** Runs with a store that may crash. */
  const withStore = async (
    part: Partial<PoolPolicy>,
    run: (use: {
      readonly device: (name: string) => Promise<Session>
      /** Stores keys, or returns the budget that is used up. */
      readonly store: (session: Session, keys: UploadedKey[], now?: number) => Promise<string>
      readonly remove: (session: Session, name: string) => Promise<void>
      readonly crash: () => Promise<void>
    }) => Promise<void>,
  ): Promise<void> => {
    const policy = { ...DEFAULT_POOL_POLICY, ...part }
    let open: OpenStore<PoolHistoryStore> = await under.open(policy)
    try {
      await run({
        device: (name) => login(open.store, NOW, USER, name as DeviceId),
        store: (session, oneTimeKeys, now = NOW) =>
          keyPools(open.store, policy)
            .upload({ session, oneTimeKeys, fallbackKeys: [], now })
            .then(
              () => 'stored',
              (error: unknown) => {
                if (error instanceof BudgetError) return error.budget
                throw error
              },
            ),
        remove: (session, name) => open.store.devices.remove(session, [name as DeviceId], NOW),
        crash: async () => {
          open = await open.crash()
        },
      })
    } finally {
      await open.close()
    }
  }

  for (const [budget, limits, size] of [
    ['user_bytes', { keyBytesPerUserAndDay: 10_000 }, bytesOf],
    ['user_keys', { keysPerUserAndDay: 95 }, (keys: readonly UploadedKey[]) => keys.length],
  ] as const) {
    test(`20 device IDs of a user store no more than one budget on a ${under.name} store: ${budget}`, async () => {
      await withStore(limits, async ({ device, store, remove, crash }) => {
        const limit = Math.max(...Object.values(limits))
        const remover = await device('REMOVER')
        let stored = 0
        let refused = 0
        for (let n = 0; n < 20; n++) {
          const keys = batch(n * 10, 10)
          const result = await store(await device(`DEVICE${n}`), keys)
          if (result === 'stored') stored += size(keys)
          else {
            assert.equal(result, budget)
            refused++
          }
          await remove(remover, `DEVICE${n}`)
          if (n === 12) await crash()
        }
        assert.ok(stored <= limit && stored > limit - 2 * size(batch(0, 10)), `${stored} of ${limit}`)
        assert.ok(refused > 0)
        const next = await device('NEXT')
        assert.equal(await store(next, batch(1000, 10), NOW + DAY_MS - 1), budget)
        assert.equal(await store(next, batch(1000, 10), NOW + DAY_MS), 'stored')
      })
    })
  }

  test(`devices of a user that upload at once share one budget on a ${under.name} store`, async () => {
    await withStore({ keysPerUserAndDay: 35 }, async ({ device, store }) => {
      const sessions: Session[] = []
      for (let n = 0; n < 8; n++) sessions.push(await device(`DEVICE${n}`))
      const results = await Promise.all(sessions.map((session, n) => store(session, batch(n * 10, 10))))
      assert.deepEqual(results.sort(), [...Array(3).fill('stored'), ...Array(5).fill('user_keys')])
    })
  })

  test(`10 devices that upload 100 keys each are within the default budgets of a ${under.name} store`, async () => {
    await withStore({}, async ({ device, store }) => {
      for (let n = 0; n < 10; n++)
        assert.equal(await store(await device(`DEVICE${n}`), batch(n * 100, 100)), 'stored')
    })
  })

  test(`a clock that was moved backwards frees no budget of a ${under.name} store, and blocks it for a day`, async () => {
    await withStore({ keysPerUserAndDay: 10 }, async ({ device, store }) => {
      const session = await device('DEVICE')
      assert.equal(await store(session, batch(0, 10), NOW + 400 * DAY_MS), 'stored')
      assert.equal(await store(session, batch(10, 1), NOW), 'user_keys')
      assert.equal(await store(session, batch(10, 1), NOW + DAY_MS - 1), 'user_keys')
      assert.equal(await store(session, batch(10, 1), NOW + DAY_MS), 'stored')
    })
  })

  test(`a device is healed a few times a day on a ${under.name} store, across a crash`, async () => {
    await withStore({ healsPerDeviceAndDay: 2 }, async ({ device, store, crash }) => {
      const session = await device('DEVICE')
      const other = await device('OTHER')
      assert.equal(await store(session, [makeKey(SIGNED_CURVE25519, 'A', 0)]), 'stored')
      assert.equal(await store(other, [makeKey(SIGNED_CURVE25519, 'A', 0)]), 'stored')
      let now = NOW
      const conflict = async (of: Session, material: number): Promise<string> => {
        const keys = [makeKey(SIGNED_CURVE25519, 'A', material)]
        await assert.rejects(store(of, keys, (now += 2_000)), { status: 400 })
        await crash()
        return store(of, keys, (now += 2_000))
      }
      assert.equal(await conflict(session, 1), 'stored')
      assert.equal(await conflict(session, 2), 'stored')
      assert.equal(await conflict(session, 3), 'heals')
      assert.equal(await conflict(other, 1), 'stored')
      assert.equal(await store(session, [makeKey(SIGNED_CURVE25519, 'A', 3)], (now += 2_000)), 'heals')
    })
  })
}
