/** What the key manager keeps in the store beside the ledger, the server's view and the heals: one kind of record each. */
import type { KeyName } from '@latchkey/protocol'
import type { ServerLevel } from '../events.ts'
import type { HealCause } from '../heal/heals.ts'
import type { Kind } from '../store/stored-state.ts'

/** The account: whose it is, and all its private halves, pickled. */
export type AccountRecord = {
  readonly userId: string
  readonly deviceId: string
  readonly curve25519: string
  readonly ed25519: string
  readonly pickle: string
  /** How many private one-time keys the account can hold. */
  readonly slots: number
  readonly imported?: Imported
}

/**
 * Taken over from another store, whose ledger is not here: until the pool was read, or until none of its keys can be
 * waited for any more.
 */
export type Imported = {
  readonly at: number
  /** Keys of before that the server has, as far as its counts tell; undefined until the first count. They leave first. */
  readonly available: number | undefined
  /** Their private halves in the account, as far as it can be known. */
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

/** Where things stand. A member that is undefined is not stored. */
export type Status = {
  /** The sync position that was handled. */
  readonly since: string | undefined
  readonly level: ServerLevel | undefined
  /** Whether the server has this device's identity: `unknown` means that it is to be asked before anything is uploaded. */
  readonly deviceKeys: 'unknown' | 'missing' | 'published'
  /** Why the account must not be used any more. */
  readonly dead: string | undefined
  /** The time in the last wire ID, ms. */
  readonly lastIdTime: number
  /** New one-time keys by the hour. */
  readonly generated: readonly { readonly at: number; readonly count: number }[]
  /** When the app was last told that the budget of new keys is spent. */
  readonly limitedAt: number | undefined
  /** The clock that keys in flight are waited for by: its time, and the other clock's when it was looked at (slots.ts). */
  readonly waitClock: { readonly at: number; readonly time: number } | undefined
  /** Syncs in a row that were full of to-device events: more are waiting, and use keys that seem idle. */
  readonly fullPages: number
  /** The number of the last message: none is given twice, or one process would delete another's. */
  readonly lastMessage: number
  /** The other identity that the server named for this device, once. */
  readonly suspected: string | undefined
  /** What was asked and mended lately (rate-limit.ts). */
  readonly rateLimits: {
    readonly [What in RateLimitedAction]?: { readonly at: number; readonly left: number }
  }
  /** Why the pool is to be read. */
  readonly poolReadCause: HealCause | undefined
  /** The digest of the pool that is understood: by the ledger, or by a reading that could not be healed. */
  readonly explainedDigest: { readonly digest: string; readonly count: number } | undefined
  /** A heal that had to wait: when it may be looked at again, and what was reported. */
  readonly postponed: { readonly at: number; readonly waitMs: number } | undefined
  /** The drift that was last told of without healing it. */
  readonly reported: string | undefined
  /** The next heal replaces everything. */
  readonly replaceCause: HealCause | undefined
  /** Withdrawals in a row after which the pool was still wrong. */
  readonly escalation: number
  /** How often in a row an upload was refused. */
  readonly refusals: number
  /** About the fallback key: offer the same again, or a new one (`heal`: at once, because a dead one is published). */
  readonly fallbackAction: 'republish' | 'used' | 'fresh' | 'heal' | undefined
  /** Failures in a row of the request that is due: it waits `waitMs` from `at` on. */
  readonly retry: { readonly at: number; readonly waitMs: number; readonly failures: number } | undefined
}

export const NEW_STATUS: Status = {
  since: undefined,
  level: undefined,
  deviceKeys: 'unknown',
  dead: undefined,
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

/** A request that changes keys: written down before it is handed out, and the same text until it was answered. */
export type PendingRequest = {
  readonly id: string
  readonly type: 'keys_upload' | 'keys_reset'
  readonly path: string
  /** The exact text. */
  readonly body: string
  /** The server's epoch when it was decided: in another one it is dropped. */
  readonly epoch?: string
  readonly oneTimeKeys: readonly KeyName[]
  readonly fallbackKey?: KeyName
  readonly fallbackWhy?: 'missing' | 'used' | 'age' | 'heal'
  readonly hasDeviceKeys: boolean
  /** Answers that did not settle it; a heal that nobody takes must not keep everything else waiting. */
  readonly failures?: number
  /** A reset: why, and what it withdraws. */
  readonly heal?: {
    readonly cause: HealCause
    readonly kind: 'withdraw' | 'replace'
    readonly keys: readonly KeyName[]
  }
}

/** At most one record: changes of keys go one after another. */
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
  /** The Matrix user that opened it; none where this device did. */
  readonly sender?: string
  /** When it last decrypted, or was made. */
  readonly usedAt: number
}

export const SESSIONS: Kind<SessionRecord> = {
  name: 'session',
  check: (value): value is SessionRecord =>
    hasTexts(value, 'peer', 'pickle') && typeof (value as SessionRecord).usedAt === 'number',
}

/** A decrypted message that the app has not said to have handled. */
export type DecryptedMessage = {
  /** The same for the same message, whenever it comes: for an app that must not handle one twice. */
  readonly id: string
  /** The Matrix user that the event came from. */
  readonly sender: string
  /** The curve25519 identity key of the sending device: what the message was really encrypted with. */
  readonly senderKey: string
  /** As it was encrypted. The app checks `sender`, `recipient` and `recipient_keys` in it (specification, `m.olm.v1`). */
  readonly plaintext: string
  readonly sessionId: string
}

/** By number, in the order in which they were decrypted. */
export const INBOX: Kind<DecryptedMessage> = {
  name: 'message',
  check: (value): value is DecryptedMessage => hasTexts(value, 'id', 'sender', 'senderKey', 'plaintext'),
}

/** Something remembered, and its place in the order of remembering. */
export type Remembered = { readonly n: number; readonly of?: string }

const isMemory = (value: unknown): value is Remembered =>
  typeof (value as Partial<Remembered> | null)?.n === 'number'

/** Ciphertexts that were decrypted, by hash: the same again is no failure. */
export const SEEN: Kind<Remembered> = { name: 'seen', check: isMemory }
/** Sessions that were opened with a fallback key (`of`), by session ID: none is opened twice while the key lives. */
export const OPENED: Kind<Remembered> = { name: 'opened', check: isMemory }

/** The one record of kinds that have one. */
export const ONLY = 'only'

function hasTexts(value: unknown, ...members: readonly string[]): boolean {
  if (typeof value !== 'object' || value === null) return false
  return members.every((member) => typeof (value as Record<string, unknown>)[member] === 'string')
}
