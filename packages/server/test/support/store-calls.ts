/** One-line calls of a store for the tests of the fence. One user, two devices, keys by number. */
import type { UploadResult } from '../../src/pool/commands.ts'
import { keyPools } from '@latchkey/testing/key-pools.ts'
import { SIGNED_CURVE25519, type UserId } from '@latchkey/protocol'
import type { FenceEvent } from '../../src/fence/events.ts'
import type { PoolStatus } from '../../src/pool/commands.ts'
import type { UploadedKey } from '../../src/pool/key.ts'
import type { Session } from '../../src/session.ts'
import type { Store } from '../../src/store.ts'
import type { SyncReading } from '../../src/sync/port.ts'
import type { SyncToken } from '../../src/sync/token.ts'
import { claimer, DEVICE, login, makeKey, USER } from '../store-contract/test-device.ts'

export const DAY_MS = 24 * 60 * 60 * 1000
export const NOW = 1_700_000_000_000
export const OTHER = 'OTHERDEV' as typeof DEVICE
export const FALLBACK = makeKey(SIGNED_CURVE25519, 'FALLBACK', 100_000)

export function keys(from: number, to: number): UploadedKey[] {
  return Array.from({ length: to - from }, (_, i) =>
    makeKey(SIGNED_CURVE25519, `K${String(from + i).padStart(4, '0')}`, from + i),
  )
}

export function upload(
  store: Store,
  session: Session,
  oneTimeKeys: UploadedKey[],
  fallbackKeys: UploadedKey[] = [],
): Promise<UploadResult> {
  return keyPools(store).upload({ session, oneTimeKeys, fallbackKeys, now: NOW })
}

export async function claim(store: Store, deviceId = DEVICE): Promise<string | undefined> {
  const targets = [{ userId: USER, deviceId, algorithm: SIGNED_CURVE25519 }]
  return (await store.pools.claim({ claimer: claimer('bob'), targets, now: NOW }))[0]?.keyId
}

export async function claims(store: Store, count: number): Promise<(string | undefined)[]> {
  const claimed: (string | undefined)[] = []
  for (let n = 0; n < count; n++) claimed.push(await claim(store))
  return claimed
}

export function sync(store: Store, session: Session, token?: SyncToken): Promise<SyncReading> {
  return store.sync.read(session, {
    ...(token && { token }),
    confirms: true,
    everyoneFromBeginning: token !== undefined,
    page: { toDevicePerSync: 100, syncPageBytes: 1e9 },
    mayWait: false,
  })
}

export function tokenOf({ epoch, position }: SyncReading): SyncToken {
  return { epoch, position }
}

export async function send(store: Store, session: Session, n: number): Promise<void> {
  await store.messages.send({
    session,
    transaction: `m.test ${n}`,
    messages: [{ userId: USER, deviceId: DEVICE, event: JSON.stringify({ n }) }],
    now: NOW,
  })
}

/** Sends this many transactions at once. */
export async function sendMany(store: Store, session: Session, count: number): Promise<void> {
  await Promise.all(Array.from({ length: count }, (_, n) => send(store, session, n)))
}

/** Repeats a request while it is refused with 503, because the connections are lost. */
export async function untilServed<T>(request: () => Promise<T>): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await request()
    } catch (error) {
      if (attempt === 20 || !(error instanceof Error && 'status' in error && error.status === 503))
        throw error
    }
  }
}

/** Three accounts that send. */
export async function senders(store: Store): Promise<Session[]> {
  const names = ['@bob:test.example', '@carol:test.example', '@dave:test.example'] as UserId[]
  const sessions: Session[] = []
  for (const userId of names) sessions.push(await login(store, NOW, userId))
  return sessions
}

export const countOf = (status: PoolStatus): number | undefined => status.algorithms[0]?.count
export const kindsOf = (events: readonly FenceEvent[]): string[] => events.map(({ kind }) => kind)
export const messagesOf = (reading: SyncReading): unknown[] =>
  reading.toDevice.map((event) => (JSON.parse(event) as { n: number }).n)
