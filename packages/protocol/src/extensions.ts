/** Names and shapes of Latchkey's wire extensions (extensions.md). All are optional for clients. */

/** The reset endpoint of MSC4162, below `/_matrix/client/`. */
export const RESET_UNSTABLE_PATH = 'unstable/org.matrix.msc4162/keys/reset'
/** The endpoint for the device's own pools, below `/_matrix/client/`. */
export const POOL_PATH = 'unstable/dev.latchkey/keys/pool'

/** Names of members in requests and answers. */
export const KEY_POOL = 'dev.latchkey.key_pool'
export const OUTCOMES = 'dev.latchkey.outcomes'
export const FALLBACK_OUTCOMES = 'dev.latchkey.fallback_outcomes'
export const STORED_AS = 'dev.latchkey.stored_as'
export const EVICTED = 'dev.latchkey.evicted'
export const CONFLICTS = 'dev.latchkey.conflicts'
export const IF_GENERATION = 'dev.latchkey.if_generation'
export const IF_VERSION = 'dev.latchkey.if_version'
export const EPOCH = 'dev.latchkey.epoch'
export const REQUEST_ID = 'dev.latchkey.request_id'
export const WITHDRAWN = 'dev.latchkey.withdrawn'
export const ABSENT = 'dev.latchkey.absent'

/** Flags in `unstable_features` of `/versions`. */
export const UNSTABLE_FEATURES = { 'org.matrix.msc4162': true, 'dev.latchkey.key_pool': true } as const

/** Outcomes of an uploaded one-time key (key-pool.md "Upload"). */
export const UPLOAD_OUTCOMES = [
  'stored',
  'id_reused',
  'already_stored',
  'already_issued',
  'already_removed',
  'in_use_elsewhere',
] as const
export type UploadOutcome = (typeof UPLOAD_OUTCOMES)[number]

/** Outcomes of an uploaded fallback key. */
export const FALLBACK_KEY_OUTCOMES = [
  'stored',
  'already_stored',
  'already_replaced',
  'in_use_elsewhere',
] as const
export type FallbackOutcome = (typeof FALLBACK_KEY_OUTCOMES)[number]

/** `dev.latchkey.key_pool`: state of a device's pools on the server. Comparable only within one epoch. */
export type KeyPool = {
  readonly epoch: string
  /** Incremented by every change, including fallback keys. */
  readonly version: number
  /** Incremented whenever keys leave the pool other than by being issued. */
  readonly generation: number
  /** algorithm -> base64url digest of the available keys. */
  readonly digest: Readonly<Record<string, string>>
  /** algorithm -> base64url SHA-256 of the current fallback key's material. */
  readonly fallback: Readonly<Record<string, string>>
}
