/** The operator's operations (admin/port.ts): locked users, removed devices, pages, registration tokens. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { DeviceId, UserId } from '@latchkey/protocol'
import { lockedHash } from '../../src/accounts/locked-users.ts'
import { DEFAULT_POOL_POLICY } from '../../src/pool/policy.ts'
import type { Store } from '../../src/store.ts'
import type { StoreUnderTest } from './store-under-test.ts'
import { DEVICE, login, poolStatus, USER } from './test-device.ts'

export function testAdmin(under: StoreUnderTest): void {
  const withStore = (run: (store: Store) => Promise<void>) => async (): Promise<void> => {
    const open = await under.open(DEFAULT_POOL_POLICY)
    try {
      await run(open.store)
    } finally {
      await open.close()
    }
  }

  test(
    `a locked user has no session in a ${under.name} store, and the same ones after the unlock`,
    withStore(async (store) => {
      const session = await login(store, 0)
      const bystander = await login(store, 0, '@bob:test.example' as UserId)
      const { userRef } = session
      assert.equal(await store.admin.setLocked(userRef, 5), true)
      assert.equal(await store.admin.setLocked(userRef, 6), false)
      assert.equal((await store.admin.user(USER))?.lockedTs, 5)
      assert.equal(await store.accounts.session(session.tokenHash), undefined)
      // A request that was admitted before the lock.
      await assert.rejects(poolStatus(store, session), { status: 401 })
      await assert.rejects(store.devices.rename(session, DEVICE, 'late'), { status: 401 })
      await assert.rejects(login(store, 7), { status: 403, errcode: 'M_USER_LOCKED' })
      assert.ok(await store.accounts.session(bystander.tokenHash))
      assert.equal(await store.admin.setLocked(userRef, undefined), true)
      assert.equal(await store.admin.setLocked(userRef, undefined), false)
      assert.deepEqual(await store.accounts.session(session.tokenHash), session)
      await poolStatus(store, session)
    }),
  )

  test(
    `a locked user can log out of a ${under.name} store, which no unlock undoes`,
    withStore(async (store) => {
      const session = await login(store, 0)
      await store.admin.setLocked(session.userRef, 5)
      const locked = await store.accounts.session(lockedHash(session.tokenHash))
      assert.ok(locked)
      await store.devices.remove(locked, [DEVICE], 6)
      await store.admin.setLocked(session.userRef, undefined)
      assert.equal(await store.accounts.session(session.tokenHash), undefined)
      assert.equal((await store.admin.user(USER))?.devices, 0)
    }),
  )

  test(
    `devices are removed and passwords set in a ${under.name} store without a session`,
    withStore(async (store) => {
      const [a, b, c] = [
        await login(store, 0, USER, 'A' as DeviceId),
        await login(store, 0, USER, 'B' as DeviceId),
        await login(store, 0, USER, 'C' as DeviceId),
      ]
      const { userRef } = a
      const named = { kind: 'named', deviceIds: [b.deviceId, 'NONE' as DeviceId] } as const
      assert.equal(await store.admin.removeDevices(userRef, named, 1), 1)
      assert.equal(await store.admin.removeDevices(userRef, named, 2), 0)
      assert.equal(await store.accounts.session(b.tokenHash), undefined)
      const change = { user: userRef, passwordHash: 'new', now: 3 }
      assert.equal(await store.admin.resetPassword({ ...change, endSessions: false }), 0)
      assert.equal((await store.accounts.find(USER))?.passwordHash, 'new')
      assert.ok(await store.accounts.session(a.tokenHash))
      assert.equal(await store.admin.resetPassword({ ...change, endSessions: true }), 2)
      for (const { tokenHash } of [a, c]) assert.equal(await store.accounts.session(tokenHash), undefined)
    }),
  )

  test(
    `users and registration tokens of a ${under.name} store are listed in pages`,
    withStore(async (store) => {
      const names = ['@a:test.example', '@b:test.example', '@c:test.example'] as UserId[]
      for (const userId of names.toReversed())
        await store.accounts.create({ userId, passwordHash: '', now: 1 })
      const page = async (after: string) =>
        (await store.admin.users({ after, limit: 2 })).map(({ userId }) => userId)
      assert.deepEqual(await page(''), names.slice(0, 2))
      assert.deepEqual(await page('@b:test.example'), names.slice(2))
      for (const tokenHash of ['Ax', 'Ay_', 'Ayz'])
        await store.accounts.createRegistrationToken({ tokenHash, usesAllowed: 2, expiresTs: 9, now: 1 })
      const listed = await store.admin.registrationTokens({ after: 'Ax', limit: 5 })
      assert.deepEqual(
        listed.map(({ tokenHash }) => tokenHash),
        ['Ay_', 'Ayz'],
      )
      assert.deepEqual(
        { ...listed[0] },
        { tokenHash: 'Ay_', uses: 0, usesAllowed: 2, expiresTs: 9, createdTs: 1 },
      )
      // An underscore is a letter of base64url, not a pattern.
      assert.deepEqual(await store.admin.revokeRegistrationTokens('Ay_'), ['Ay_'])
      assert.deepEqual(await store.admin.revokeRegistrationTokens('Ay_'), [])
      assert.equal(await store.accounts.registrationTokenValid('Ay_', 2), false)
      assert.equal(await store.accounts.registrationTokenValid('Ayz', 2), true)
    }),
  )
}
