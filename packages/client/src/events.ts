/**
 * Events for the app: what happened and why, and what to do. Apps can log them, show them in their settings, or report
 * them. The library does not wait for listeners and ignores their exceptions.
 */
import type { KeyName } from '@latchkey/protocol'
import type { HealCause } from './heal/heals.ts'

/** Level of a server, which determines what can be healed. */
export type ServerLevel =
  /** `dev.latchkey.key_pool`: drift is noticed at the next sync, and unknown keys are withdrawn by name. */
  | 'latchkey'
  /** `org.matrix.msc4162` alone: drift is noticed when an upload conflicts; keys can be reset. */
  | 'msc4162'
  /** The plain specification: drift is noticed when an upload conflicts; unwanted keys can only be claimed away. */
  | 'bare'

/** The members of each event type. */
type Details = {
  /** The server's level was determined. */
  server: { readonly level: ServerLevel; readonly baseUrl: string }
  /** First use with existing keys on the server: they are recorded, and never withdrawn for being unknown. */
  adopted: { readonly count: number }
  /** The server may issue keys that this device should not have there. */
  drift: { readonly cause: HealCause; readonly keys: readonly KeyName[] }
  /** A heal succeeded. */
  healed: { readonly cause: HealCause; readonly detail: string; readonly keys: readonly KeyName[] }
  /** A heal failed, or was not allowed (mode `report`, budget, missing endpoint). */
  not_healed: { readonly cause: HealCause; readonly detail: string; readonly keys: readonly KeyName[] }
  /** Uploads were healed twice within a day: two clients use one account. */
  two_writers: { readonly heals: number }
  /** A sync's count was stale or wrong; the newest known count was used instead. */
  stale_count: { readonly received: number | undefined; readonly used: number }
  /** Guard: keys beyond what a device can use, or beyond the daily budget, were withheld from the server. */
  upload_limited: { readonly keys: number; readonly published: number }
  /** Guard: the pre-key messages of two sessions used one one-time key. */
  key_seen_twice: { readonly key: KeyName; readonly senders: readonly string[] }
  /** A message could not be decrypted; the ledger's verdict on its key. */
  undecryptable: { readonly sender: string; readonly verdict: Verdict; readonly key?: string }
  /** Guard: the device published other identity keys than before. */
  identity_changed: { readonly former: string; readonly current: string }
  /** KeyManager: the account cannot be used any more; log in as a new device. */
  account_unusable: { readonly detail: string }
  /** KeyManager: a private half was dropped to free a slot, although a message may still use it. */
  key_dropped: { readonly key: KeyName }
  /** KeyManager: the session limit was reached; the oldest sessions of the user with the most were dropped. */
  sessions_dropped: { readonly sender: string; readonly count: number }
  /** More new keys are needed than the daily budget allows. */
  generation_limited: { readonly generated: number; readonly perDay: number }
  /** KeyManager: a new fallback key was published. */
  fallback_rotated: { readonly key: KeyName; readonly trigger: 'missing' | 'used' | 'age' | 'heal' }
  /** Guard: the server's pool could not be read, so it was not compared with the ledger. */
  pool_unreadable: { readonly error: string }
  /** Guard: the store failed or is locked; until it works again, requests pass as if there were no guard. */
  unguarded: { readonly error: string }
}

/**
 * Why a message could not be decrypted, as far as the ledger knows. `docs/reference/client-events.md` explains each.
 */
export const VERDICTS = [
  'unknown_key',
  'already_used',
  'seen_once',
  'seen_twice',
  'withdrawn',
  'removed',
  'expired',
  'lost',
  'adopted',
  'fallback_replaced',
  'private_key_held',
  'no_session',
  'malformed',
] as const
/** The verdict on the key of an undecryptable message. `docs/reference/client-events.md` explains each. */
export type Verdict = (typeof VERDICTS)[number]

/** The type of an event. `docs/reference/client-events.md` explains each. */
export type ClientEventType = keyof Details

/** An event: common members, and those of its type. */
export type ClientEvent = {
  readonly [Type in ClientEventType]: {
    readonly type: Type
    /** When it happened, ms since the epoch. */
    readonly at: number
    readonly severity: 'info' | 'warning' | 'error'
    /** What happened and why, one sentence. */
    readonly message: string
    /** The action to take; empty when there is none. */
    readonly remedy: string
  } & Details[Type]
}[ClientEventType]

/** A listener for events. It is not awaited, and its exceptions are ignored. */
export type OnEvent = (event: ClientEvent) => void

/** An event's own members, without those that `emit` adds. */
export type EventDetails<Type extends ClientEventType> = Details[Type]
