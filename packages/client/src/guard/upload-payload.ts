/** The key payload of an upload: decoded, hashed, and settled in the ledger by the server's answer. */
import { isJsonObject, type Json, type JsonObject, type KeyJson, parseKeyName } from '@latchkey/protocol'
import { FALLBACK_KEYS, type KeyState, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { generatedSoFar, type HashedKey, hashKeys, moveTo } from '../ledger/ledger.ts'
import type { UploadAnswer } from '../server/answers.ts'
import type { Transaction } from '../store/stored-state.ts'

export type Identity = {
  readonly userId: string
  readonly deviceId: string
  readonly curve25519: string
  readonly ed25519: string
}

export type UploadPayload = {
  readonly body: JsonObject
  readonly oneTimeKeys: readonly HashedKey[]
  readonly fallbackKeys: readonly HashedKey[]
  readonly identity: Identity | undefined
}

/** Keys recorded per request: no SDK sends more, and servers refuse more. */
const MAX_KEYS = 1_000

export async function decodePayload(body: JsonObject): Promise<UploadPayload> {
  const { one_time_keys: oneTimeKeys, fallback_keys: fallbackKeys, device_keys: deviceKeys } = body
  return {
    body,
    oneTimeKeys: await hashKeys(validKeys(oneTimeKeys)),
    fallbackKeys: await hashKeys(validKeys(fallbackKeys)),
    identity: identityOf(deviceKeys),
  }
}

/** The body without the named one-time keys. */
export function withoutKeys(body: JsonObject, names: ReadonlySet<string>): JsonObject {
  const { one_time_keys: keys, ...rest } = body
  if (!isJsonObject(keys)) return body
  const left = Object.entries(keys).filter(([name]) => !names.has(name))
  return left.length === 0 ? rest : { ...rest, one_time_keys: Object.fromEntries(left) }
}

/** Moves the keys of an acknowledged upload to their resulting states. Without outcomes all were stored. */
export function settleKeys(
  transaction: Transaction,
  keys: readonly HashedKey[],
  { outcomes, storedAs, evicted }: UploadAnswer,
  now: number,
): void {
  for (const { name, hash } of keys) {
    const record = transaction.get(ONE_TIME_KEYS, name)
    if (record?.hash !== hash || record.state !== 'uploading') continue
    const other = storedAs.get(name)
    if (other !== undefined && other !== name) {
      // The server keeps the key under its former name only.
      moveTo(transaction, ONE_TIME_KEYS, name, 'unsent', now, { detail: `the server has it as ${other}` })
      continue
    }
    const state = STATE_OF[outcomes.get(name) ?? 'stored']
    const more = state === 'issued' ? { issuedAt: now } : { publishedAt: now }
    moveTo(transaction, ONE_TIME_KEYS, name, state, now, more)
  }
  for (const name of evicted) {
    moveTo(transaction, ONE_TIME_KEYS, name, 'removed', now, { detail: 'evicted: the pool was over its cap' })
  }
}

const STATE_OF = {
  stored: 'available',
  id_reused: 'available',
  already_stored: 'available',
  already_issued: 'issued',
  already_removed: 'removed',
  // The private half is kept: the server may return the key from its other place.
  in_use_elsewhere: 'issued',
} as const satisfies Record<string, KeyState>

/** Records fallback keys before their upload is sent. */
export function recordFallbackKeys(transaction: Transaction, keys: readonly HashedKey[], now: number): void {
  for (const { name, hash } of keys) {
    const known = transaction.get(FALLBACK_KEYS, name)
    if (known?.hash === hash) continue
    if (known !== undefined) transaction.put(FALLBACK_KEYS, `${name}~${known.hash.slice(0, 8)}`, known)
    const order = generatedSoFar(transaction)
    transaction.put(FALLBACK_KEYS, name, { state: 'uploading', since: now, hash, batch: 0, order })
  }
}

/**
 * Records fallback keys that the server accepted. Each replaces the former one of its algorithm, whose private half the
 * SDK keeps for one more rotation.
 */
export function settleFallbackKeys(
  transaction: Transaction,
  keys: readonly HashedKey[],
  { fallbackOutcomes }: UploadAnswer,
  now: number,
): void {
  for (const { name, hash } of keys) {
    const known = transaction.get(FALLBACK_KEYS, name)
    if (known?.hash !== hash || known.state === 'available') continue
    const outcome = fallbackOutcomes.get(name)
    if (outcome === 'already_replaced' || outcome === 'in_use_elsewhere') {
      moveTo(transaction, FALLBACK_KEYS, name, 'issued', now)
      continue
    }
    const algorithm = name.slice(0, name.indexOf(':') + 1)
    for (const [id, { state }] of transaction.all(FALLBACK_KEYS)) {
      if (!id.startsWith(algorithm)) continue
      if (state === 'issued') moveTo(transaction, FALLBACK_KEYS, id, 'expired', now)
      if (state === 'available') moveTo(transaction, FALLBACK_KEYS, id, 'issued', now)
    }
    moveTo(transaction, FALLBACK_KEYS, name, 'available', now, { publishedAt: now })
  }
  forgetFallbackKeys(transaction)
}

const MAX_FALLBACK_KEYS = 50

/** Forgets fallback keys that are history, oldest first. */
export function forgetFallbackKeys(transaction: Transaction): void {
  const records = [...transaction.all(FALLBACK_KEYS)]
  const history = records.filter(([, { state }]) => state !== 'available' && state !== 'issued')
  history.sort(([, a], [, b]) => a.since - b.since)
  for (const [id] of history.slice(0, Math.max(0, records.length - MAX_FALLBACK_KEYS))) {
    transaction.delete(FALLBACK_KEYS, id)
  }
}

function identityOf(deviceKeys: Json | undefined): Identity | undefined {
  if (!isJsonObject(deviceKeys)) return undefined
  const { user_id: userId, device_id: deviceId, keys } = deviceKeys
  if (typeof userId !== 'string' || typeof deviceId !== 'string' || !isJsonObject(keys)) return undefined
  const curve25519 = keys[`curve25519:${deviceId}`]
  const ed25519 = keys[`ed25519:${deviceId}`]
  if (typeof curve25519 !== 'string' || typeof ed25519 !== 'string') return undefined
  return { userId, deviceId, curve25519, ed25519 }
}

function validKeys(value: Json | undefined): Record<string, KeyJson> {
  if (!isJsonObject(value)) return {}
  const valid: [string, KeyJson][] = []
  for (const [name, key] of Object.entries(value).slice(0, MAX_KEYS)) {
    if (parseKeyName(name) === undefined) continue
    if (typeof key === 'string') valid.push([name, key])
    else if (isJsonObject(key) && typeof key['key'] === 'string')
      valid.push([name, { ...key, key: key['key'] }])
  }
  return Object.fromEntries(valid)
}
