/** Operations of the crash tests' workers, one or two requests each; answers go into the ledger. */
import { randomBytes, randomInt } from 'node:crypto'
import type { Ledger } from './ledger.ts'

export type Device = { readonly userId: string; readonly deviceId: string; readonly token: string }

export type Answer = { readonly status: number; readonly body: Record<string, unknown> }

/** Resolves with an answer of status 200, or rejects. */
export type Caller = {
  call(method: string, path: string, token?: string, body?: unknown): Promise<Answer>
}

/** At this count a device uploads no more keys, so that no pool evicts. */
const ENOUGH_KEYS = 150

export async function upload(client: Caller, ledger: Ledger, device: Device): Promise<void> {
  const { body: status } = await client.call('POST', '/_matrix/client/v3/keys/upload', device.token, {})
  const counts = status['one_time_key_counts'] as Record<string, number>
  if ((counts['signed_curve25519'] ?? 0) > ENOUGH_KEYS) return
  const keys = newKeys(randomInt(1, 12))
  await client.call('POST', '/_matrix/client/v3/keys/upload', device.token, { one_time_keys: byName(keys) })
  ledger.stored(device.deviceId, keys)
}

export async function claim(
  client: Caller,
  ledger: Ledger,
  who: Device,
  from: readonly Device[],
): Promise<void> {
  const chosen = from.filter(() => randomInt(2) === 0)
  const wanted = chosen.map((device) => [device.userId, { [device.deviceId]: ALGORITHM }])
  const { body } = await client.call('POST', '/_matrix/client/v3/keys/claim', who.token, {
    one_time_keys: Object.fromEntries(wanted),
  })
  const claimed = body['one_time_keys'] as Record<string, Record<string, Record<string, { key: string }>>>
  const keys = Object.values(claimed).flatMap((devices) =>
    Object.values(devices).flatMap(Object.values<{ key: string }>),
  )
  for (const { key } of keys) ledger.issued(key)
}

/**
 * Withdraws all keys and uploads new ones in the same transaction. A request ID makes the request repeatable; a device
 * has a thousand IDs per day.
 */
export async function reset(
  client: Caller,
  ledger: Ledger,
  device: Device,
  hasRequestId = true,
): Promise<void> {
  const keys = newKeys(20)
  ledger.resetBegins(device.deviceId)
  const { body } = await client.call('POST', '/_matrix/client/v3/keys/reset', device.token, {
    all: true,
    one_time_keys: byName(keys),
    ...(hasRequestId && { 'dev.latchkey.request_id': randomBytes(9).toString('base64url') }),
  })
  ledger.resetEnds(device.deviceId)
  ledger.withdrawn(
    (body['dev.latchkey.withdrawn'] as string[]).map((name) => name.slice(ALGORITHM.length + 1)),
  )
  ledger.stored(device.deviceId, keys)
}

export async function send(client: Caller, ledger: Ledger, from: Device, to: Device): Promise<void> {
  const id = randomBytes(9).toString('base64url')
  await client.call('PUT', `/_matrix/client/v3/sendToDevice/m.test/${id}`, from.token, {
    messages: { [to.userId]: { [to.deviceId]: { id } } },
  })
  ledger.sent(to.deviceId, id)
}

const ALGORITHM = 'signed_curve25519'

/** Keys whose ID is their material, so that a name in an answer identifies the key. */
function newKeys(count: number): string[] {
  return Array.from({ length: count }, () => randomBytes(32).toString('base64').replace('=', ''))
}

function byName(materials: readonly string[]): Record<string, object> {
  return Object.fromEntries(materials.map((key) => [`${ALGORITHM}:${key}`, { key, signatures: {} }]))
}

export function pick<T>(items: readonly T[]): T {
  const item = items[randomInt(items.length)]
  if (item === undefined) throw new Error('nothing to pick from')
  return item
}
