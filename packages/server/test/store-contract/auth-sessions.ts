/** Sessions of user-interactive authentication: their bounds, their time, and that one operation finishes one. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { UserId } from '@latchkey/protocol'
import { AUTH_SESSION_MS } from '../../src/accounts/auth-session.ts'
import { AuthSessionEnded, type AuthOwner, type NewAuthSession } from '../../src/accounts/port.ts'
import { DEFAULT_POOL_POLICY } from '../../src/pool/policy.ts'
import type { Store } from '../../src/store.ts'
import type { StoreUnderTest } from './store-under-test.ts'
import { DEVICE, login, USER } from './test-device.ts'

const NOW = 1_700_000_000_000
const ALICE = { kind: 'network', name: '192.0.2.1' } as const

function sessionOf(owner: AuthOwner, idHash: string, now = NOW): NewAuthSession {
  return {
    idHash,
    owner,
    operation: 'operation',
    sealed: Buffer.from(idHash),
    expiresTs: now + AUTH_SESSION_MS,
    now,
  }
}

async function isKept({ authSessions }: Store, idHash: string, now = NOW): Promise<boolean> {
  return (await authSessions.find(idHash, now)) !== undefined
}

function finishing(idHash: string, now = NOW) {
  return { idHash, sealed: Buffer.from('answer'), expiresTs: now + AUTH_SESSION_MS, now }
}

export function testAuthSessions(under: StoreUnderTest): void {
  const inStore = (name: string, run: (store: Store) => Promise<void>): void => {
    test(`${name} (${under.name})`, async () => {
      const open = await under.open(DEFAULT_POOL_POLICY)
      try {
        await run(open.store)
      } finally {
        await open.close()
      }
    })
  }

  inStore('a flood of authentication sessions ends only those of its own owner', async (store) => {
    await store.authSessions.add(sessionOf(ALICE, 'first'))
    const mallory = { kind: 'network', name: '2001:db8:1::/48' } as const
    for (let n = 0; n < 300; n++) await store.authSessions.add(sessionOf(mallory, `flood ${n}`))
    assert.equal(await isKept(store, 'first'), true)
    const kept = await Promise.all(Array.from({ length: 300 }, (_, n) => isKept(store, `flood ${n}`)))
    assert.equal(kept.filter(Boolean).length, 256)
    assert.equal(kept.lastIndexOf(false), 43)
    const bob = { kind: 'user', name: '192.0.2.1' } as const
    for (let n = 0; n < 11; n++) await store.authSessions.add(sessionOf(bob, `bob ${n}`))
    assert.deepEqual([await isKept(store, 'bob 0'), await isKept(store, 'bob 1')], [false, true])
    assert.equal(await isKept(store, 'first'), true)
  })

  inStore('an authentication session expires', async (store) => {
    await store.authSessions.add(sessionOf(ALICE, 'first'))
    assert.equal(await isKept(store, 'first', NOW + AUTH_SESSION_MS - 1), true)
    assert.equal(await isKept(store, 'first', NOW + AUTH_SESSION_MS), false)
  })

  inStore('the transaction of an operation finishes its session, once', async (store) => {
    await store.authSessions.add(sessionOf(ALICE, 'first'))
    const account = { userId: USER, passwordHash: '', now: NOW, finishes: finishing('first') }
    const outcomes = await Promise.allSettled([
      store.accounts.create(account),
      store.accounts.create({ ...account, userId: '@bob:test.example' as UserId }),
    ])
    const refusals = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []))
    assert.equal(refusals.length, 1)
    assert.ok(refusals[0] instanceof AuthSessionEnded)
    const created = await Promise.all([
      store.accounts.find(USER),
      store.accounts.find('@bob:test.example' as UserId),
    ])
    assert.equal(created.filter(Boolean).length, 1)
    const found = await store.authSessions.find('first', NOW)
    assert.equal(Buffer.from(found?.sealed ?? '').toString(), 'answer')
  })

  inStore(
    'an operation that fails leaves its session open, and one without its session changes nothing',
    async (store) => {
      const session = await login(store, NOW)
      await store.authSessions.add(sessionOf(ALICE, 'first'))
      await assert.rejects(
        store.accounts.create({ userId: USER, passwordHash: '', now: NOW, finishes: finishing('first') }),
        { errcode: 'M_USER_IN_USE' },
      )
      const remove = (idHash: string): Promise<void> =>
        store.devices.remove(session, [DEVICE], NOW, finishing(idHash))
      await assert.rejects(remove('unknown'), AuthSessionEnded)
      assert.deepEqual(await store.accounts.session(session.tokenHash), session)
      const change = { session, passwordHash: 'new', endOthers: true, now: NOW }
      await assert.rejects(
        store.accounts.setPassword({ ...change, finishes: finishing('unknown') }),
        AuthSessionEnded,
      )
      await assert.rejects(
        store.devices.putCrossSigning(session, { keys: [], signatures: [] }, undefined, finishing('unknown')),
        AuthSessionEnded,
      )
      await remove('first')
      assert.equal(await store.accounts.session(session.tokenHash), undefined)
    },
  )

  inStore('an account and its first login are one operation', async (store) => {
    const first = { deviceId: DEVICE, tokenHash: 'hash' as never, now: NOW }
    const { userRef } = await store.accounts.create({
      userId: USER,
      passwordHash: '',
      login: first,
      now: NOW,
    })
    const session = await store.accounts.session(first.tokenHash)
    assert.deepEqual([session?.userRef, session?.deviceId], [userRef, DEVICE])
  })
}
