/** Records of the key manager, in addition to the ledger, the server view and the heals. */
import type { KeyName } from '@latchkey/protocol'
import type { ServerLevel } from '../events.ts'
import type { HealCause } from '../heal/heals.ts'
import type { Kind } from '../store/stored-state.ts'

/** The account: its device, and all private halves, pickled. */
export type AccountRecord = {
  readonly userId: string
  readonly deviceId: string
  readonly curve25519: string
  readonly ed25519: string
  readonly pickle: string
  /** Private one-time keys that the account can hold. */
  readonly slots: number
  readonly imported?: Imported
}

/**
 * An account imported from another store, whose ledger is not available: until the pool was read or its keys expired.
 */
export type Imported = {
  readonly at: number
  /** Older keys on the server according to its counts; undefined before the first count. They leave the pool first. */
  readonly available: number | undefined
  /** Their private halves in the account, as far as known. */
  readonly held: number
}

export const ACCOUNT: Kind<AccountRecord> = {
  name: 'account',
  check: (value): value is AccountRecord =>
    hasTexts(value, 'userId', 'deviceId', 'curve25519', 'ed25519', 'pickle') &&
    typeof (value as AccountRecord).slots === 'number',
}

/** Actions that are rate-limited (rate-limit.ts). */
export type RateLimitedAction = 'keys_query' | 'keys_pool' | 'keys_reset' | 'fallback'

/** The manager's state. Undefined members are not stored. */
export type Status = {
  /** The sync position that was applied. */
  readonly since: string | undefined
  readonly level: ServerLevel | undefined
  /** Whether the server has this device's identity; `unknown`: ask before uploading anything. */
  readonly deviceKeys: 'unknown' | 'missing' | 'published'
  /** Why the account must not be used any more. */
  readonly unusableReason: string | undefined
  /** Timestamp of the last wire ID, ms. */
  readonly lastIdTime: number
  /** New one-time keys, by hour. */
  readonly generated: readonly { readonly at: number; readonly count: number }[]
  /** When the app was last informed that the budget of new keys is spent. */
  readonly limitedAt: number | undefined
  /**
   * The clock that decides how long keys in flight are kept (slots.ts): its time, and the system time of its last
   * advance.
   */
  readonly waitClock: { readonly at: number; readonly time: number } | undefined
  /** Consecutive syncs full of to-device events: more are waiting, and will use keys that seem idle. */
  readonly fullPages: number
  /** Number of the last message; never reused, so one process cannot delete another's message. */
  readonly lastMessage: number
  /** Another identity that the server reported once for this device. */
  readonly suspected: string | undefined
  /** Recent rate-limited requests (rate-limit.ts). */
  readonly rateLimits: {
    readonly [What in RateLimitedAction]?: { readonly at: number; readonly left: number }
  }
  /** Why a pool read is due. */
  readonly poolReadCause: HealCause | undefined
  /** The digest that is explained: by the ledger, or by a pool read whose heal is blocked. */
  readonly explainedDigest: { readonly digest: string; readonly count: number } | undefined
  /** When a postponed heal may be tried again. */
  readonly postponed: { readonly at: number; readonly waitMs: number } | undefined
  /** The drift that was last reported without healing it. */
  readonly reported: string | undefined
  /** Why the next heal replaces everything. */
  readonly replaceCause: HealCause | undefined
  /** Consecutive withdrawals after which the pool was still wrong. */
  readonly escalation: number
  /** Consecutive refusals of an upload. */
  readonly refusals: number
  /**
   * Pending action on the fallback key: upload the same one again, or a new one (`heal`: at once, because the private
   * half of the published key is lost).
   */
  readonly fallbackAction: 'republish' | 'used' | 'fresh' | 'heal' | undefined
  /** Consecutive failures of the due request: it waits `waitMs` from `at` on. */
  readonly retry: { readonly at: number; readonly waitMs: number; readonly failures: number } | undefined
}

export const NEW_STATUS: Status = {
  since: undefined,
  level: undefined,
  deviceKeys: 'unknown',
  unusableReason: undefined,
  lastIdTime: 0,
  generated: [],
  limitedAt: undefined,
  waitClock: undefined,
  fullPages: 0,
  lastMessage: 0,
  suspected: undefined,
  rateLimits: {},
  poolReadCause: undefined,
  explainedDigest: undefined,
  postponed: undefined,
  reported: undefined,
  replaceCause: undefined,
  escalation: 0,
  refusals: 0,
  fallbackAction: undefined,
  retry: undefined,
}

export const STATUS: Kind<Status> = {
  name: 'status',
  check: (value): value is Status =>
    hasTexts(value, 'deviceKeys') &&
    typeof (value as Status).lastIdTime === 'number' &&
    Array.isArray((value as Status).generated),
}

/** A request that changes keys: stored before it is sent, and sent with the same text until it is answered. */
export type PendingRequest = {
  readonly id: string
  readonly type: 'keys_upload' | 'keys_reset'
  readonly path: string
  /** The exact text of the body. */
  readonly body: string
  /** The server's epoch when the request was decided; in another epoch it is dropped. */
  readonly epoch?: string
  readonly oneTimeKeys: readonly KeyName[]
  readonly fallbackKey?: KeyName
  readonly fallbackTrigger?: 'missing' | 'used' | 'age' | 'heal'
  readonly hasDeviceKeys: boolean
  /** Answers that did not settle it. A heal that keeps failing must not block everything else. */
  readonly failures?: number
  /** For a reset: its cause, and the keys it withdraws. */
  readonly heal?: {
    readonly cause: HealCause
    readonly kind: 'withdraw' | 'replace'
    readonly keys: readonly KeyName[]
  }
}

/** One record per slot: key changes are sequential. */
export const PENDING: Kind<PendingRequest> = {
  name: 'pending',
  check: (value): value is PendingRequest =>
    hasTexts(value, 'id', 'type', 'path', 'body') && Array.isArray((value as PendingRequest).oneTimeKeys),
}
export type PendingSlot = 'upload' | 'heal'

/** A session with another device, by its ID. */
export type SessionRecord = {
  /** The other device's curve25519 identity key. */
  readonly peer: string
  readonly pickle: string
  /** The Matrix user that opened it; absent if this device did. */
  readonly sender?: string
  /** When it last decrypted a message, or was created. */
  readonly usedAt: number
}

export const SESSIONS: Kind<SessionRecord> = {
  name: 'session',
  check: (value): value is SessionRecord =>
    hasTexts(value, 'peer', 'pickle') && typeof (value as SessionRecord).usedAt === 'number',
}

/** A decrypted message that the app has not acknowledged. */
export type DecryptedMessage = {
  /** Equal for repeated deliveries of a message, so an app can handle each message once. */
  readonly id: string
  /** The Matrix user that sent the event, as the server says. */
  readonly sender: string
  /** The sending device's curve25519 identity key, proven by the encryption. */
  readonly senderKey: string
  /**
   * The decrypted text. The app must check `sender`, `recipient` and `recipient_keys` in it (specification,
   * `m.olm.v1`).
   */
  readonly plaintext: string
  readonly sessionId: string
}

/** By number, in the order of decryption. */
export const INBOX: Kind<DecryptedMessage> = {
  name: 'message',
  check: (value): value is DecryptedMessage => hasTexts(value, 'id', 'sender', 'senderKey', 'plaintext'),
}

/** A remembered entry, and its position in the order of remembering. */
export type Remembered = { readonly n: number; readonly of?: string }

const isMemory = (value: unknown): value is Remembered =>
  typeof (value as Partial<Remembered> | null)?.n === 'number'

/** Decrypted ciphertexts, by hash: a repetition is not a failure. */
export const SEEN: Kind<Remembered> = { name: 'seen', check: isMemory }
/**
 * Sessions opened with a fallback key (`of`), by session ID: none is opened twice while the key's private half exists.
 */
export const OPENED: Kind<Remembered> = { name: 'opened', check: isMemory }

/** The record ID of kinds that have only one record. */
export const ONLY = 'only'

function hasTexts(value: unknown, ...members: readonly string[]): boolean {
  if (typeof value !== 'object' || value === null) return false
  return members.every((member) => typeof (value as Record<string, unknown>)[member] === 'string')
}
