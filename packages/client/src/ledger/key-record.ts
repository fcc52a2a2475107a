/**
 * What a device remembers of one public key that it offered to the server.
 *
 *     uploading --acknowledged--> available --a claimer got it--> issued --a message named it--> used
 *         |                           |                              \--30 days without one--> expired
 *         |                           |--reset answered "withdrawn"--> withdrawn
 *         |                           |--evicted, purged, gone-------> removed
 *         \--never reached the server, or answered as not stored-----> unsent
 *     any of these --the private half is known to be gone-----------> lost
 *
 * `available` and `uploading` keys may still be issued; `issued` ones may be in flight; the rest is memory, kept so that
 * a message that cannot be decrypted is explained (desync attribution, matrix-org/element-x-ios#4371).
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
export type KeyState = (typeof KEY_STATES)[number]

export type KeyRecord = {
  readonly state: KeyState
  /** When it came to be in this state, ms. */
  readonly since: number
  /** Why, in a few words, where the state does not say it. */
  readonly cause?: string
  /** base64url SHA-256 of the key's material. */
  readonly hash: string
  /** The key's share of the pool digest, base64url; unknown for keys that were adopted. Dropped when it is history. */
  readonly share?: string
  /** The public key, where the owner of the ledger needs it (KeyManager). Dropped when it is history. */
  readonly key?: string
  /** Keys generated and published together have one number; it grows. */
  readonly batch: number
  /** The place among all keys ever published: the order in which a server issues them. */
  readonly order: number
  /** When the upload was acknowledged, ms. */
  readonly publishedAt?: number
  /** When it was issued as far as is known, ms: by the server's word, or when it was noticed. */
  readonly issuedAt?: number
  /** It was only concluded from a count that it was issued: the server may have lied, and may issue it still. */
  readonly inferred?: true
  /** When that was noticed, by a clock of the key manager's own (`waitedTime`), ms. */
  readonly noticedAt?: number
  /** Found on the server when there was no ledger: nothing is known of its private half. */
  readonly adopted?: true
  /** What named it first: a short hash of the sender's key and the session's base key. */
  readonly session?: string
}

/** One-time keys by name. A name that came to be used anew keeps its former key under `name~hash`. */
export const ONE_TIME_KEYS: Kind<KeyRecord> = { name: 'key', check: isKeyRecord }
/** Fallback keys by name: `available` is the current one, `issued` a former one, whose private half is kept. */
export const FALLBACK_KEYS: Kind<KeyRecord> = { name: 'fallback', check: isKeyRecord }

/** May the server still issue it, as far as this device knows? */
export function isPublic({ state }: KeyRecord): boolean {
  return state === 'available' || state === 'uploading'
}

/** May a message that names it still come? */
export function mayStillBeUsed(record: KeyRecord): boolean {
  return isPublic(record) || record.state === 'issued'
}

/** The name without the mark of a former key. */
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
