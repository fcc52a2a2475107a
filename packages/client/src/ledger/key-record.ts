/**
 * The ledger's record of one public key that the device uploaded.
 *
 *     uploading --acknowledged--> available --claimed--------------> issued --a message used it--> used
 *         |                           |                                 \--30 days unused-------> expired
 *         |                           |--reset answered "withdrawn"--> withdrawn
 *         |                           |--evicted, purged, missing----> removed
 *         \--never reached the server, or answered as not stored-----> unsent
 *     any of these --the private half is known to be lost------------> lost
 *
 * `available` and `uploading` keys may still be issued; `issued` keys may be in flight. The other states are history,
 * kept to explain undecryptable messages (desync attribution, matrix-org/element-x-ios#4371).
 */
import type { KeyName } from '@latchkey/protocol'
import type { Kind } from '../store/stored-state.ts'

const KEY_STATES = [
  'uploading',
  'available',
  'issued',
  'used',
  'withdrawn',
  'removed',
  'unsent',
  'expired',
  'lost',
] as const
/** State of a key in the ledger. */
export type KeyState = (typeof KEY_STATES)[number]

export type KeyRecord = {
  readonly state: KeyState
  /** When it entered this state, ms. */
  readonly since: number
  /** Why, in a few words, where the state does not say it. */
  readonly detail?: string
  /** base64url SHA-256 of the key's material. */
  readonly hash: string
  /** The key's share of the pool digest, base64url; unknown for adopted keys. Dropped when the key is history. */
  readonly share?: string
  /** The public key, if the ledger's owner needs it (KeyManager). Dropped when the key is history. */
  readonly key?: string
  /** Number of the batch in which it was generated and published; increasing. */
  readonly batch: number
  /** Position among all keys ever published: the order in which a server issues them. */
  readonly order: number
  /** When the upload was acknowledged, ms. */
  readonly publishedAt?: number
  /** When it was issued, ms: as reported by the server, or when it was noticed. */
  readonly issuedAt?: number
  /** Inferred as issued from a count alone: if the server lied, it may still issue the key. */
  readonly inferred?: true
  /** When the issue was noticed, by the key manager's wait clock (`waitClockTime`), ms. */
  readonly noticedAt?: number
  /** Found on the server when there was no ledger: its private half is unknown. */
  readonly adopted?: true
  /** The session that used it first: a short hash of the sender's key and the session's base key. */
  readonly session?: string
}

/** One-time keys by name. When a name is reused, its former key is kept as `name~hash`. */
export const ONE_TIME_KEYS: Kind<KeyRecord> = { name: 'key', check: isKeyRecord }
/** Fallback keys by name: `available` is the current one; `issued` a former one whose private half is kept. */
export const FALLBACK_KEYS: Kind<KeyRecord> = { name: 'fallback', check: isKeyRecord }

/** Whether the server may still issue the key, as far as this device knows. */
export function isPublic({ state }: KeyRecord): boolean {
  return state === 'available' || state === 'uploading'
}

/** Whether a message that uses the key may still arrive. */
export function mayStillBeUsed(record: KeyRecord): boolean {
  return isPublic(record) || record.state === 'issued'
}

/** The key name of a ledger ID, without the suffix of a former key. */
export function nameOf(id: string): KeyName {
  const mark = id.indexOf('~')
  return (mark === -1 ? id : id.slice(0, mark)) as KeyName
}

function isKeyRecord(value: unknown): value is KeyRecord {
  if (typeof value !== 'object' || value === null) return false
  const record = value as Partial<Record<keyof KeyRecord, unknown>>
  return (
    KEY_STATES.includes(record.state as KeyState) &&
    typeof record.since === 'number' &&
    typeof record.hash === 'string' &&
    typeof record.batch === 'number' &&
    typeof record.order === 'number' &&
    isOptional(record.share, 'string') &&
    isOptional(record.key, 'string') &&
    isOptional(record.publishedAt, 'number') &&
    isOptional(record.issuedAt, 'number') &&
    isOptional(record.noticedAt, 'number')
  )
}

function isOptional(value: unknown, type: 'string' | 'number'): boolean {
  return value === undefined || typeof value === type
}
