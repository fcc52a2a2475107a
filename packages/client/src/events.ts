/**
 * What the library tells an app: every event says what happened, why, and what to do. They are for logs, for a page in
 * the app's settings, for sending home; nothing in the library waits for a listener, and one that throws is ignored.
 */
import type { KeyName } from '@latchkey/protocol'
import type { HealCause } from './heal/heals.ts'

/** What kind of server was met: what can be healed depends on it. */
export type ServerLevel =
  /** `dev.latchkey.key_pool`: drift is seen at the next sync, and unknown keys are withdrawn one by one. */
  | 'latchkey'
  /** `org.matrix.msc4162` alone: drift is seen when an upload conflicts; reset is there. */
  | 'msc4162'
  /** The specification as it is: drift is seen when an upload conflicts; poisoned keys can only be claimed away. */
  | 'bare'

type Details = {
  /** What was found out about the server. */
  server: { readonly level: ServerLevel; readonly baseUrl: string }
  /** First use beside existing keys: taken over as they are, and never withdrawn for being unknown. */
  adopted: { readonly count: number }
  /** The server would issue keys that this device should not have there. */
  drift: { readonly reason: HealCause; readonly keys: readonly KeyName[] }
  /** A heal did what it was to do. */
  healed: { readonly reason: HealCause; readonly did: string; readonly keys: readonly KeyName[] }
  /** A heal did not, or was not allowed to (mode `report`, budget, no such endpoint). */
  not_healed: { readonly reason: HealCause; readonly why: string; readonly keys: readonly KeyName[] }
  /** A second heal of uploads within the budget's day: two clients write to one account. */
  two_writers: { readonly heals: number }
  /** A count that was older than what is known, or wrong; the newest one was used instead. */
  stale_count: { readonly told: number | undefined; readonly used: number }
  /** More keys than a device can use, or than a day's budget, were about to be published; they were kept from the server. */
  flood: { readonly keys: number; readonly published: number }
  /** One one-time key, named by the pre-key messages of two sessions. */
  key_named_twice: { readonly key: KeyName; readonly senders: readonly string[] }
  /** A message could not be decrypted; what the ledger knows of its key. */
  undecryptable: { readonly sender: string; readonly verdict: Verdict; readonly key?: string }
  /** The device's identity keys are not those that the server, or the ledger, has. */
  identity_changed: { readonly former: string; readonly current: string }
  /** KeyManager: the account cannot be used any more; log in as a new device. */
  device_dead: { readonly why: string }
  /** KeyManager: a private half was given up although it may be in flight, because there was no room. */
  key_dropped: { readonly key: KeyName }
  /** KeyManager: there were too many sessions, and the oldest of whoever had most were given up. */
  sessions_dropped: { readonly sender: string; readonly count: number }
  /** The server asks for more keys than the day's budget of new keys allows. */
  generation_limited: { readonly generated: number; readonly perDay: number }
  /** KeyManager: a new fallback key was published. */
  fallback_rotated: { readonly key: KeyName; readonly why: 'missing' | 'used' | 'age' | 'heal' }
  /** The server's pool was to be read, and could not be: whether it fits the ledger is not known. */
  not_compared: { readonly error: string }
  /** The guard cannot do its work, because the store fails or is locked; requests pass as if there were no guard until it can. */
  unguarded: { readonly error: string }
}

/** Why a message could not be decrypted, as far as the ledger knows. */
export const VERDICTS = [
  'never_ours',
  'used_before',
  'named',
  'named_twice',
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
export type Verdict = (typeof VERDICTS)[number]

export type ClientEventType = keyof Details

export type ClientEvent = {
  readonly [Type in ClientEventType]: {
    readonly type: Type
    /** ms. */
    readonly at: number
    readonly severity: 'info' | 'warning' | 'error'
    /** What happened and why, one sentence. */
    readonly cause: string
    /** What to do about it; empty when there is nothing. */
    readonly remedy: string
  } & Details[Type]
}[ClientEventType]

export type OnEvent = (event: ClientEvent) => void

/** The event without what `emit` adds. */
export type EventDetails<Type extends ClientEventType> = Details[Type]
