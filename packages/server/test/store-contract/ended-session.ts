/**
 * A session that ends between the authentication and the operation of a request gets a 401; nothing is read or stored.
 */
import { keyPools } from '@latchkey/testing/key-pools.ts'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SIGNED_CURVE25519 } from '@latchkey/protocol'
import { DEFAULT_POOL_POLICY } from '../../src/pool/policy.ts'
import type { Session } from '../../src/session.ts'
import type { Store } from '../../src/store.ts'
import type { StoreUnderTest } from './store-under-test.ts'
import { DEVICE, login, makeKey, poolStatus, USER } from './test-device.ts'

type Operation = (store: Store, session: Session) => Promise<unknown>

const KEYS = { oneTimeKeys: [makeKey(SIGNED_CURVE25519, 'LATE', 1)], fallbackKeys: [], now: 3 }

const OPERATIONS: Readonly<Record<string, Operation>> = {
  upload: (store, session) => keyPools(store).upload({ session, ...KEYS }),
  reset: (store, session) => keyPools(store).reset({ session, withdrawal: { all: true }, ...KEYS }),
  'reading the pools': ({ pools }, session) => pools.inspect(session, { limit: 10 }),
  sync: poolStatus,
  send: ({ messages }, session) =>
    messages.send({
      session,
      transaction: 'm.test late',
      messages: [{ userId: USER, deviceId: DEVICE, event: '{}' }],
      now: 3,
    }),
  'renaming a device': ({ devices }, session) => devices.rename(session, DEVICE, 'late'),
  'removing a device': ({ devices }, session) => devices.remove(session, [DEVICE], 3),
  track: ({ devices }, session) => devices.track(session, ['@bob:test.example' as typeof USER]),
}

export function testEndedSession(under: StoreUnderTest): void {
  for (const [name, operation] of Object.entries(OPERATIONS)) {
    test(`${name} in a ${under.name} store is refused for an ended session, even if its device is in use again`, async () => {
      const open = await under.open(DEFAULT_POOL_POLICY)
      const { store } = open
      try {
        const ended = await login(store, 0)
        await store.devices.remove(ended, [DEVICE], 1)
        await assert.rejects(operation(store, ended), { status: 401 })
        const session = await login(store, 2)
        const before = await store.pools.inspect(session, { limit: 10 })
        await assert.rejects(operation(store, ended), { status: 401 })
        assert.deepEqual(await store.pools.inspect(session, { limit: 10 }), before)
      } finally {
        await open.close()
      }
    })
  }
}
