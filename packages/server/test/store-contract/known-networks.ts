/** The networks from which an account has logged in: kept per account, a bounded number, those of the latest logins. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { DeviceId, UserId } from '@latchkey/protocol'
import { NETWORKS_PER_USER } from '../../src/accounts/known-networks.ts'
import type { TokenHash } from '../../src/session.ts'
import { DEFAULT_POOL_POLICY } from '../../src/pool/policy.ts'
import type { StoreUnderTest } from './store-under-test.ts'
import { DEVICE, USER } from './test-device.ts'

const BOB = '@bob:test.example' as UserId

export function testKnownNetworks(under: StoreUnderTest): void {
  test(`a ${under.name} store knows the networks of the last logins of an account`, async () => {
    const open = await under.open(DEFAULT_POOL_POLICY)
    const { accounts } = open.store
    try {
      const loginFrom = (network: number, now: number) => ({
        deviceId: DEVICE as DeviceId,
        tokenHash: `token ${now}` as TokenHash,
        networkHash: `network ${network}`,
        now,
      })
      const account = await accounts.create({
        userId: USER,
        passwordHash: '',
        login: loginFrom(0, 1),
        now: 1,
      })
      await accounts.create({ userId: BOB, passwordHash: '', now: 1 })
      const known = (network: number, user?: UserId): Promise<boolean> =>
        accounts.knowsNetwork(`network ${network}`, user)
      assert.deepEqual([await known(0, USER), await known(0), await known(0, BOB)], [true, true, false])
      for (let n = 1; n <= NETWORKS_PER_USER; n++) {
        await accounts.openSession({ account, ...loginFrom(n, n + 1) })
        // The first network stays, because it is used again.
        if (n === 2) await accounts.openSession({ account, ...loginFrom(0, 100) })
      }
      assert.deepEqual(
        [await known(0, USER), await known(1, USER), await known(2, USER)],
        [true, false, true],
      )
    } finally {
      await open.close()
    }
  })
}
