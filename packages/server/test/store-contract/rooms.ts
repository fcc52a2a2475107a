/**
 * Rules of to-device messages, logins, device lists and cross-signing where a store could decide differently from the
 * domain, because facts change between its statements. The rules themselves are tested with the domain.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { DeviceId, UserId } from '@latchkey/protocol'
import type { CrossSigningKey, SignedCrossSigning } from '../../src/devices/port.ts'
import { MAX_AWAITED } from '../../src/devices/tracking.ts'
import { DEFAULT_POOL_POLICY } from '../../src/pool/policy.ts'
import type { Session, TokenHash } from '../../src/session.ts'
import type { Store } from '../../src/store.ts'
import type { StoreUnderTest } from './store-under-test.ts'
import { DEVICE, login, USER } from './test-device.ts'

const DAY_MS = 24 * 60 * 60 * 1000
const NOW = 1_700_000_000_000
const OTHER = 'OTHER' as DeviceId

type Case = (store: Store, session: Session) => Promise<void>

const CASES: Readonly<Record<string, Case>> = {
  'a transaction ID is forgotten exactly 24 hours later, even if others were swept before it': async (
    store,
    session,
  ) => {
    const send = (n: number, id: string, now: number): Promise<unknown> =>
      store.messages.send({ session, transaction: `m.test ${id}`, messages: [message(n)], now })
    // More forgotten transactions than one send sweeps; the tested one is the newest of them.
    for (let n = 0; n < 30; n++) await send(n, `older ${n}`, NOW - 1)
    await send(100, 'same', NOW)
    await send(101, 'same', NOW + DAY_MS)
    await send(102, 'same', NOW + DAY_MS + 1)
    await send(103, 'same', NOW + DAY_MS + 2)
    assert.deepEqual((await received(store, session)).slice(30), [100, 102])
  },

  'a transaction ID sent several times concurrently is applied once': async (store, session) => {
    const send = (n: number): Promise<unknown> =>
      store.messages.send({ session, transaction: 'm.test once', messages: [message(n)], now: NOW })
    await Promise.all([1, 2, 3, 4].map(send))
    assert.equal((await received(store, session)).length, 1)
  },

  'a request that delivers nothing is not remembered: repeated, it delivers once there is a recipient':
    async (store, session) => {
      const send = (n: number): Promise<unknown> =>
        store.messages.send({
          session,
          transaction: 'm.test early',
          messages: [{ ...message(n), deviceId: OTHER }],
          now: NOW,
        })
      await send(1)
      const other = await login(store, NOW, USER, OTHER)
      await send(2)
      await send(3)
      assert.deepEqual(await received(store, other), [2])
    },

  'a request over the fan-out limit delivers nothing, and a concurrent one is delivered': async (
    store,
    session,
  ) => {
    const text = 'x'.repeat(9 * 1024 * 1024)
    const send = (id: string, messages: ReturnType<typeof message>[]): Promise<unknown> =>
      store.messages.send({ session, transaction: `m.test ${id}`, messages, now: NOW })
    const [refused, sent] = await Promise.allSettled([
      send('large', [message(1, text), message(2, text)]),
      send('small', [message(3)]),
    ])
    assert.equal(refused.status === 'rejected' && (refused.reason as { status?: number }).status, 413)
    assert.equal(sent.status, 'fulfilled')
    await send('large', [message(4)])
    assert.deepEqual(await received(store, session), [3, 4])
  },

  'a new login keeps the messages and transactions of its device; a login after its removal does not': async (
    store,
    session,
  ) => {
    const send = (from: Session, n: number): Promise<unknown> =>
      store.messages.send({ session: from, transaction: 'm.test t', messages: [message(n)], now: NOW })
    await send(session, 1)
    const renewed = await login(store, NOW)
    await send(renewed, 2)
    assert.deepEqual(await received(store, renewed), [1])
    await store.devices.remove(renewed, [DEVICE], NOW)
    const restored = await login(store, NOW)
    assert.deepEqual(await received(store, restored), [])
    await send(restored, 3)
    assert.deepEqual(await received(store, restored), [3])
  },

  'a login checks the password, then the name, then the number of devices': async (store, session) => {
    const account = await store.accounts.find(USER)
    assert.ok(account)
    await store.devices.putCrossSigning(session, unsigned([masterKey('KEY')]), undefined)
    const openAs = (deviceId: string, passwordHash = account.passwordHash): Promise<Session> =>
      store.accounts.openSession({
        account: { ...account, passwordHash },
        deviceId: deviceId as DeviceId,
        tokenHash: `${deviceId} ${passwordHash}` as TokenHash,
        now: NOW,
      })
    await assert.rejects(openAs('KEY', 'other'), { status: 403 })
    await assert.rejects(openAs('KEY'), { status: 400, message: /cross-signing public keys/ })
    await openAs(OTHER)
    assert.deepEqual(
      (await store.devices.list(session.userRef)).map(({ deviceId }) => deviceId),
      [DEVICE, OTHER],
    )
  },

  'the error names the first of several public keys that equal device IDs': async (store, session) => {
    await login(store, NOW, USER, OTHER)
    const keys = [OTHER, DEVICE].map((publicKey, place) => ({
      ...masterKey(publicKey),
      usage: place === 0 ? ('master' as const) : ('self_signing' as const),
    }))
    await assert.rejects(store.devices.putCrossSigning(session, unsigned(keys), undefined), {
      status: 403,
      message: /"OTHER"/,
    })
    assert.deepEqual((await store.devices.published([USER], session.userRef)).get(USER)?.crossSigning, [])
  },

  'replacing a master key removes the signatures on it and by it': async (store, session) => {
    await store.devices.putCrossSigning(session, unsigned([masterKey('M1'), selfSigningKey('S1')]), undefined)
    const sign = (keyId: string, by: string): Promise<void> =>
      store.devices.addSignatures(session, session.userRef, [
        { keyId, signer: USER, signerKeyId: `ed25519:${by}`, signature: `${by} on ${keyId}` },
      ])
    await sign('M1', DEVICE)
    await sign(DEVICE, 'M1')
    await sign(DEVICE, 'S1')
    await store.devices.putCrossSigning(session, unsigned([masterKey('M2')]), 'M1')
    const left = (await store.devices.published([USER], session.userRef)).get(USER)?.signatures
    assert.deepEqual(
      left?.map(({ signature }) => signature),
      [`S1 on ${DEVICE}`],
    )
  },

  'signatures by a removed device, and on it, are removed with it': async (store, session) => {
    const other = await login(store, NOW, USER, OTHER)
    const keys = unsigned([masterKey('M1'), selfSigningKey('S1')])
    await store.devices.putCrossSigning(session, keys, undefined)
    const sign = (keyId: string, by: string): Promise<void> =>
      store.devices.addSignatures(session, session.userRef, [
        { keyId, signer: USER, signerKeyId: `ed25519:${by}`, signature: `${by} on ${keyId}` },
      ])
    const left = async (): Promise<string[]> => {
      const published = (await store.devices.published([USER], session.userRef)).get(USER)
      return (published?.signatures ?? []).map(({ signature }) => signature).sort()
    }
    await sign('M1', OTHER)
    await sign(OTHER, 'S1')
    await sign('M1', DEVICE)
    assert.deepEqual(await left(), [`${DEVICE} on M1`, `${OTHER} on M1`, `S1 on ${OTHER}`])
    await store.devices.remove(other, [OTHER], NOW)
    assert.deepEqual(await left(), [`${DEVICE} on M1`])
    // A request that was checked before the removal.
    await sign('M1', OTHER)
    await sign(OTHER, 'S1')
    assert.deepEqual(await left(), [`${DEVICE} on M1`])
  },

  'signatures of others are read for their signer alone': async (store, session) => {
    await store.devices.putCrossSigning(session, unsigned([masterKey('M1')]), undefined)
    const signers = ['@bob:test.example', '@carol:test.example'] as UserId[]
    const refs: Session['userRef'][] = []
    for (const userId of signers) {
      const signer = await login(store, NOW, userId, OTHER)
      refs.push(signer.userRef)
      await store.devices.putCrossSigning(signer, unsigned([masterKey(`of ${userId}`)]), undefined)
      await store.devices.addSignatures(signer, session.userRef, [
        { keyId: 'M1', signer: userId, signerKeyId: `ed25519:of ${userId}`, signature: userId },
      ])
    }
    const seenBy = async (viewer: Session['userRef'] | undefined): Promise<string[]> => {
      const published = await store.devices.published([USER], viewer ?? session.userRef)
      return (published.get(USER)?.signatures ?? []).map(({ signer }) => signer)
    }
    assert.deepEqual(await seenBy(session.userRef), [])
    assert.deepEqual(await seenBy(refs[0]), [signers[0]])
    assert.deepEqual(await seenBy(refs[1]), [signers[1]])
  },

  'over the limit of tracked unregistered names, the first ones in byte order are forgotten': async (
    store,
    session,
  ) => {
    const names = Array.from({ length: MAX_AWAITED }, (_, n) => `@${String(n).padStart(4, '0')}:test.example`)
    await store.devices.track(session, names.toReversed() as UserId[])
    await store.devices.track(session, ['@new:test.example' as UserId])
    const changed = async (name: string | undefined): Promise<boolean> => {
      const bob = await login(store, NOW, name as UserId, OTHER)
      const reading = await store.sync.read(session, FROM_BEGINNING)
      return reading.changedUsers.includes(bob.userId)
    }
    assert.equal(await changed(names[0]), false)
    assert.equal(await changed(names[1]), true)
    assert.equal(await changed(names.at(-1)), true)
  },

  'two concurrent registrations with one use of a token left create one account': async (store) => {
    await store.accounts.createRegistrationToken({
      tokenHash: 'T',
      usesAllowed: 1,
      expiresTs: NOW + 1,
      now: 1,
    })
    const create = (name: string, now = NOW): Promise<unknown> =>
      store.accounts.create({ userId: name as UserId, passwordHash: '', registrationTokenHash: 'T', now })
    assert.equal(await store.accounts.registrationTokenValid('T', NOW), true)
    await assert.rejects(create('@late:test.example', NOW + 1), { status: 401 })
    await assert.rejects(create(USER), { status: 400, errcode: 'M_USER_IN_USE' })
    const created = await Promise.allSettled([create('@a:test.example'), create('@b:test.example')])
    assert.deepEqual(created.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
    assert.equal(await store.accounts.registrationTokenValid('T', NOW), false)
    await assert.rejects(create(USER), { status: 400, errcode: 'M_USER_IN_USE' })
  },

  'a filter has the ID of its text, and a password change removes other devices': async (store, session) => {
    const other = await login(store, NOW, USER, OTHER)
    assert.equal(await store.sync.putFilter(session, '{"a":1}'), '0')
    assert.equal(await store.sync.putFilter(other, '{"a":2}'), '1')
    assert.equal(await store.sync.putFilter(other, '{"a":1}'), '0')
    await store.accounts.setPassword({ session, passwordHash: 'new', endOthers: true, now: NOW })
    assert.equal(await store.accounts.session(other.tokenHash), undefined)
    assert.ok(await store.accounts.session(session.tokenHash))
  },
}

const FROM_BEGINNING = {
  confirms: false,
  everyoneFromBeginning: true,
  page: { toDevicePerSync: 1000, syncPageBytes: 1e9 },
  mayWait: false,
}

export function testRooms(under: StoreUnderTest): void {
  for (const [name, run] of Object.entries(CASES)) {
    test(`${name}, in a ${under.name} store`, async () => {
      const open = await under.open(DEFAULT_POOL_POLICY)
      try {
        await run(open.store, await login(open.store, NOW))
      } finally {
        await open.close()
      }
    })
  }
}

function message(n: number, text = ''): { userId: UserId; deviceId: DeviceId; event: string } {
  return { userId: USER, deviceId: DEVICE, event: JSON.stringify({ n, text }) }
}

async function received(store: Store, session: Session): Promise<number[]> {
  const { toDevice } = await store.sync.read(session, FROM_BEGINNING)
  return toDevice.map((event) => (JSON.parse(event) as { n: number }).n)
}

function masterKey(publicKey: string): { usage: 'master'; publicKey: string; json: string } {
  return { usage: 'master', publicKey, json: JSON.stringify({ publicKey }) }
}

function selfSigningKey(publicKey: string): CrossSigningKey {
  return { ...masterKey(publicKey), usage: 'self_signing' }
}

function unsigned(keys: readonly CrossSigningKey[]): SignedCrossSigning {
  return { keys, signatures: [] }
}
