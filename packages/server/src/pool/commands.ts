/**
 * The commands of upload, claim, reset and inspection, as endpoints give them, and their results. The wire's names
 * are in `http/client-api` and docs/reference/extensions.md.
 */
import type {
  Algorithm,
  DeviceId,
  FallbackOutcome,
  KeyId,
  KeyName,
  UploadOutcome,
  UserId,
} from '@latchkey/protocol'
import type { Session } from '../session.ts'
import type { Identity } from './identity.ts'
import type { UploadedKey } from './key.ts'

/** Device keys of an upload. `json` is the canonical text of the whole object. */
export type UploadedDeviceKeys = {
  readonly json: string
  readonly identity: Identity
}

export type UploadCommand = {
  readonly session: Session
  readonly deviceKeys?: UploadedDeviceKeys
  readonly oneTimeKeys: readonly UploadedKey[]
  readonly fallbackKeys: readonly UploadedKey[]
  /** Milliseconds since 1970. */
  readonly now: number
}

export type UploadResult = {
  readonly outcomes: ReadonlyMap<KeyName, UploadOutcome>
  readonly fallbackOutcomes: ReadonlyMap<KeyName, FallbackOutcome>
  /** Material kept under another ID: uploaded name -> the name it is stored under. */
  readonly storedAs: ReadonlyMap<KeyName, KeyName>
  readonly evicted: readonly KeyName[]
  /** Why the request purged keys: for the operator's log. Undefined when it purged none. */
  readonly purged?: 'identity_changed' | 'conflict_healed'
  readonly status: PoolStatus
}

export type ClaimTarget = {
  readonly userId: UserId
  readonly deviceId: DeviceId
  readonly algorithm: Algorithm
}

/** A user of this server, or another server, which does not name the user that it claims for. */
export type Claimer = {
  readonly by: 'user' | 'server'
  /** A user ID, or the name of a server. */
  readonly id: string
  /** For the record: a user and device, or a server. */
  readonly name: string
}

export type ClaimCommand = {
  readonly claimer: Claimer
  readonly targets: readonly ClaimTarget[]
  readonly now: number
}

/** A key returned by a claim. */
export type ClaimedKey = {
  readonly keyId: KeyId
  readonly json: string
  readonly fallback: boolean
  /** A fallback key although one-time keys are left: the claimer is over its budget (depletion.ts). */
  readonly rateLimited: boolean
}

/**
 * Same order and length as the targets; undefined where there was no key, null where one was withheld from a claimer
 * over its budget (claim.ts).
 */
export type ClaimResult = readonly (ClaimedKey | null | undefined)[]

/** Which keys a reset withdraws. */
export type Withdrawal = { readonly all: true } | { readonly all: false; readonly names: readonly KeyName[] }

export type ResetCommand = {
  readonly session: Session
  readonly withdrawal: Withdrawal
  readonly ifEpoch?: string
  readonly ifGeneration?: number
  readonly ifVersion?: number
  readonly requestId?: string
  readonly oneTimeKeys: readonly UploadedKey[]
  readonly fallbackKeys: readonly UploadedKey[]
  /** Milliseconds since 1970. */
  readonly now: number
}

export type ResetResult = Omit<UploadResult, 'purged'> & {
  readonly withdrawn: readonly KeyName[]
  readonly absent: readonly KeyName[]
}

export type AlgorithmStatus = {
  readonly algorithm: Algorithm
  readonly count: number
  /** base64url */
  readonly digest: string
  readonly fallback?: { readonly keyHash: string; readonly used: boolean }
}

/** One consistent reading of a device's pools, with every change acknowledged before it. */
export type PoolStatus = {
  readonly epoch: string
  readonly version: number
  readonly generation: number
  /** Every algorithm the device has keys or history for, by name in code-point order. */
  readonly algorithms: readonly AlgorithmStatus[]
}

export type InspectedKey = { readonly keyId: KeyId; readonly keyHash: string; readonly ts: number }

/** The device's own view of its pools (`GET keys/pool`). */
export type PoolInspection = {
  readonly status: PoolStatus
  readonly pools: readonly {
    readonly algorithm: Algorithm
    /** In issue order. */
    readonly available: readonly InspectedKey[]
    /** One page of the keys issued since the last purge of the device (issued-pages.ts). */
    readonly issued: readonly InspectedKey[]
    readonly fallback?: {
      readonly keyId: KeyId
      readonly keyHash: string
      readonly used: boolean
      readonly issueCount: number
    }
  }[]
  /** Where the next page of issued keys begins; undefined on the last page. */
  readonly nextBatch?: string
}
