/**
 * Whose keys a store is about. One store, one device: its first request says which, and a request of another device is
 * refused as foreign, so that two ledgers never mix. A new token of the same device is nothing new.
 */
import type { Kind, Transaction } from '../store/stored-state.ts'
import { StoreError } from '../store/store.ts'
import { type Guarding, MAX_REMEMBERED, tell } from './guarding.ts'
import type { OwnAnswer, OwnRequests } from './own-requests.ts'
import { levelOf } from '../server/capabilities.ts'
import type { ServerLevel } from '../events.ts'

export type GuardedDevice = {
  readonly userId?: string
  readonly deviceId?: string
  /** The device's identity keys, from the `device_keys` that it published last. */
  readonly curve25519?: string
  readonly ed25519?: string
  /** When the ledger and the server's pool were first held against each other, ms. Before that, keys are adopted. */
  readonly reconciledAt?: number
}

export const GUARDED_DEVICE: Kind<GuardedDevice> = {
  name: 'guarded',
  check: (value): value is GuardedDevice => typeof value === 'object' && value !== null,
}
export const GUARDED_DEVICE_ID = 'device'

/** What is stored of the device. */
export function guardedDevice(view: { get: Transaction['get'] }): GuardedDevice {
  return view.get(GUARDED_DEVICE, GUARDED_DEVICE_ID) ?? {}
}

export function putGuardedDevice(transaction: Transaction, more: GuardedDevice): void {
  transaction.put(GUARDED_DEVICE, GUARDED_DEVICE_ID, { ...guardedDevice(transaction), ...more })
}

/**
 * Makes sure that the request's token belongs to the store's device, and records the device at first. A server that
 * does not say who the token belongs to is taken at the app's word: it gave the guard this store.
 *
 * @throws {StoreError} `foreign`, for another device's token
 */
export async function requireOwner({ memory, traffic, server, state }: Guarding): Promise<void> {
  if (memory.owners.has(traffic.token)) return
  const owner = await memory.shared(`owner ${traffic.token}`, () => askOwner(server))
  if (owner === undefined) return
  await state.update((transaction) => recordOwner(transaction, owner))
  if (memory.owners.size >= MAX_REMEMBERED) memory.owners.clear()
  memory.owners.set(traffic.token, owner)
}

type Owner = { readonly userId: string; readonly deviceId: string | undefined }

async function askOwner(server: OwnRequests): Promise<Owner | undefined> {
  const { status, body } = await server.whoami().catch(() => NO_ANSWER)
  const { user_id: userId, device_id: deviceId } = body
  if (status !== 200 || typeof userId !== 'string') return undefined
  return { userId, deviceId: typeof deviceId === 'string' ? deviceId : undefined }
}

/** @throws {StoreError} `foreign` */
export function recordOwner(transaction: Transaction, owner: Owner): void {
  const known = guardedDevice(transaction)
  const { userId, deviceId = known.deviceId } = owner
  if (known.userId === userId && known.deviceId === deviceId) return
  const isOther =
    (known.userId !== undefined && known.userId !== userId) ||
    (known.deviceId !== undefined && known.deviceId !== deviceId)
  if (isOther) {
    throw new StoreError(
      'foreign',
      `the store is that of ${known.userId} ${known.deviceId}, the request is of ${userId} ${deviceId}. Give each device a store of its own.`,
    )
  }
  putGuardedDevice(transaction, {
    userId,
    ...(deviceId !== undefined && { deviceId }),
  })
}

const NO_ANSWER: OwnAnswer = { status: 0, body: {} }

/** What the server offers; asked once for each base URL. An answer that does not come is asked for again later. */
export async function serverLevel(guarding: Guarding): Promise<ServerLevel> {
  const { memory, traffic, server } = guarding
  const known = memory.levels.get(traffic.baseUrl)
  if (known !== undefined) return known
  const asked = (): Promise<OwnAnswer> => server.versions().catch(() => NO_ANSWER)
  const { status, body } = await memory.shared(`versions ${traffic.baseUrl}`, asked)
  // An answer of Latchkey may have shown meanwhile what it is.
  const shown = memory.levels.get(traffic.baseUrl)
  if (shown !== undefined || status !== 200) return shown ?? 'bare'
  const level = levelOf(body)
  setLevel(guarding, level)
  return level
}

/** Notes what a server turned out to be; says so when that is news. */
export function setLevel(guarding: Guarding, level: ServerLevel): void {
  const { memory, traffic } = guarding
  if (memory.levels.get(traffic.baseUrl) === level) return
  if (memory.levels.size >= MAX_REMEMBERED) memory.levels.clear()
  memory.levels.set(traffic.baseUrl, level)
  tell(guarding, 'server', { level, baseUrl: traffic.baseUrl })
}
