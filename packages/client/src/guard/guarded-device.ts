/**
 * The device that a store belongs to. The first request determines it; requests of other devices are refused as
 * `foreign`, so ledgers never mix. A new token of the same device is accepted.
 */
import type { Kind, Transaction } from '../store/stored-state.ts'
import { StoreError } from '../store/store.ts'
import { emitEvent, type GuardContext, MAX_REMEMBERED, MINUTE_MS } from './context.ts'
import type { HomeserverClient, ServerAnswer } from './homeserver-client.ts'
import { levelOf } from '../server/capabilities.ts'
import type { ServerLevel } from '../events.ts'

export type GuardedDevice = {
  readonly userId?: string
  readonly deviceId?: string
  /** The device's identity keys, from the `device_keys` published last. */
  readonly curve25519?: string
  readonly ed25519?: string
  /** When the ledger was first compared with the server's pool, ms. Before that, keys are adopted. */
  readonly reconciledAt?: number
}

export const GUARDED_DEVICE: Kind<GuardedDevice> = {
  name: 'guarded',
  check: (value): value is GuardedDevice => typeof value === 'object' && value !== null,
}
const GUARDED_DEVICE_ID = 'device'

/** The stored device record. */
export function guardedDevice(view: { get: Transaction['get'] }): GuardedDevice {
  return view.get(GUARDED_DEVICE, GUARDED_DEVICE_ID) ?? {}
}

export function putGuardedDevice(transaction: Transaction, more: GuardedDevice): void {
  transaction.put(GUARDED_DEVICE, GUARDED_DEVICE_ID, { ...guardedDevice(transaction), ...more })
}

/**
 * Ensures that the request's token belongs to the store's device; records the device on first use. `/account/whoami` is
 * asked at most once a minute. While it does not answer, the token is accepted: the app chose this store, and an
 * unguarded device would be worse off.
 *
 * @throws {StoreError} `foreign`, for another device's token
 */
export async function requireOwner({
  memory,
  settings,
  traffic,
  server,
  state,
}: GuardContext): Promise<void> {
  const known = memory.owners.get(traffic.token)
  if (known?.isOwn === true) return
  const what = `owner ${traffic.token}`
  const ask = async (): Promise<Owner | undefined> =>
    memory.atMostEvery(MINUTE_MS, what, settings.now()) ? askOwner(server) : undefined
  const owner = known ?? (await memory.shared(what, ask))
  if (owner === undefined) return
  if (memory.owners.size >= MAX_REMEMBERED) memory.owners.clear()
  memory.owners.set(traffic.token, { ...owner, isOwn: false })
  await state.update((transaction) => recordOwner(transaction, owner))
  memory.owners.set(traffic.token, { ...owner, isOwn: true })
}

/** The user and device that a token belongs to. */
export type Owner = { readonly userId: string; readonly deviceId: string | undefined }

async function askOwner(server: HomeserverClient): Promise<Owner | undefined> {
  const { status, body } = await server.whoami().catch(() => NO_ANSWER)
  const { user_id: userId, device_id: deviceId } = body
  if (status !== 200 || typeof userId !== 'string') return undefined
  return { userId, deviceId: typeof deviceId === 'string' ? deviceId : undefined }
}

/** Records the owner, or checks it against the recorded one. @throws {StoreError} `foreign` */
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
      `the store belongs to ${known.userId} ${known.deviceId}, the request to ${userId} ${deviceId}. ` +
        'Use one store per device.',
    )
  }
  putGuardedDevice(transaction, {
    userId,
    ...(deviceId !== undefined && { deviceId }),
  })
}

const NO_ANSWER: ServerAnswer = { status: 0, body: {} }

/**
 * The server's level from `/versions`, asked once per base URL. Until it answers, the level is unknown, and syncs ask
 * again once a minute; a failure says nothing about the server's capabilities.
 */
export async function serverLevel(context: GuardContext): Promise<ServerLevel | undefined> {
  const { memory, settings, traffic, server } = context
  const known = knownLevel(context)
  if (known !== undefined) return known
  const what = `versions ${traffic.baseUrl}`
  const ask = async (): Promise<ServerAnswer> => {
    const isRare = traffic.kind === 'upload' || traffic.kind === 'reset'
    if (!isRare && !memory.atMostEvery(MINUTE_MS, what, settings.now())) return NO_ANSWER
    return server.versions().catch(() => NO_ANSWER)
  }
  const { status, body } = await memory.shared(what, ask)
  // An answer with Latchkey's members may have revealed the level in the meantime.
  const shown = knownLevel(context)
  if (shown !== undefined || status !== 200) return shown
  const level = levelOf(body)
  setLevel(context, level)
  return level
}

export function knownLevel({ memory, traffic }: GuardContext): ServerLevel | undefined {
  return memory.levels.get(traffic.baseUrl)
}

/** Forgets the level of a server that turned out to be different, so it is asked again. */
export function forgetLevel({ memory, traffic }: GuardContext): void {
  memory.levels.delete(traffic.baseUrl)
}

/** Records the server's level; emits `server` when it is new. */
export function setLevel(context: GuardContext, level: ServerLevel): void {
  const { memory, traffic } = context
  if (memory.levels.get(traffic.baseUrl) === level) return
  if (memory.levels.size >= MAX_REMEMBERED) memory.levels.clear()
  memory.levels.set(traffic.baseUrl, level)
  emitEvent(context, 'server', { level, baseUrl: traffic.baseUrl })
}
