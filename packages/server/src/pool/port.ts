/**
 * What the key pools need from storage. Every operation is one whole transaction, durable before its promise resolves;
 * a store is free to commit many of them together, but each is all or nothing on its own.
 *
 * The rules are the domain's (the sibling files); a store looks facts up inside its transaction, asks the rule, and
 * carries out what it decided. The contract suite in test/store-contract holds every store to the same behaviour.
 */
import type {
  Algorithm,
  DeviceId,
  FallbackOutcome,
  KeyId,
  KeyMaterial,
  KeyName,
  UploadOutcome,
  UserId,
} from '@latchkey/protocol'
import type { Session } from '../session.ts'
import type { Identity } from './identity.ts'

/** What became of a key: `available` until it leaves, and never available again under the same row. */
export type KeyState = 'available' | 'issued' | 'withdrawn' | 'evicted' | 'purged'

/** A key of an upload, decoded. `json` is its text as it will be returned to claimers. */
export type UploadedKey = {
  readonly algorithm: Algorithm
  readonly keyId: KeyId
  readonly material: KeyMaterial
  readonly json: string
}

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
  /** What an operator should hear of: an identity change, a healed conflict. Undefined when nothing. */
  readonly purged?: 'identity_changed' | 'conflict_healed'
  readonly status: PoolStatus
}

export type ClaimTarget = {
  readonly userId: UserId
  readonly deviceId: DeviceId
  readonly algorithm: Algorithm
}

export type Claimer = {
  readonly user: UserId
  /** The server that the claim came through. */
  readonly origin: string
  /** For the record: a user and device. */
  readonly name: string
}

export type ClaimCommand = {
  readonly claimer: Claimer
  readonly targets: readonly ClaimTarget[]
  readonly now: number
}

/** A key given out. */
export type ClaimedKey = {
  readonly keyId: KeyId
  readonly json: string
  readonly fallback: boolean
  /** A fallback key although one-time keys are left: the claimer is past its budget (depletion.ts). */
  readonly spared: boolean
}

/** Same order and length as the targets; undefined where there was no key. */
export type ClaimResult = readonly (ClaimedKey | undefined)[]

/** Which keys a reset withdraws. */
export type Withdrawal = { readonly all: true } | { readonly all: false; readonly names: readonly KeyName[] }

export type ResetCommand = {
  readonly session: Session
  readonly withdrawal: Withdrawal
  readonly ifEpoch?: string
  readonly ifGeneration?: number
  readonly ifVersion?: number
  readonly requestId?: string
  /** Called unless the answer is a replay; what it throws refuses the request. For rate limits: a retry costs nothing. */
  readonly beforeChange: () => void
  readonly oneTimeKeys: readonly UploadedKey[]
  readonly fallbackKeys: readonly UploadedKey[]
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
  /** Every algorithm the device has keys or history for, by name. */
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
    /** The last uploaded first (so the last issued, in upload order), a page of them, since the device's last purge. */
    readonly issued: readonly InspectedKey[]
    readonly fallback?: {
      readonly keyId: KeyId
      readonly keyHash: string
      readonly used: boolean
      readonly issueCount: number
    }
  }[]
  /** Where the next page of issued keys begins; undefined on the last. */
  readonly nextBatch?: string
}

export interface PoolStore {
  /**
   * Stores an upload: device keys, one-time keys and fallback keys together or not at all.
   *
   * @throws {MatrixError} 401 when the session ended meanwhile, 400 for conflicts and refused identities, 429 over the
   * daily budget. Nothing is stored then.
   */
  upload(command: UploadCommand): Promise<UploadResult>
  /** Issues one key per target. A key is returned by at most one claim, for ever. */
  claim(command: ClaimCommand): Promise<ClaimResult>
  /**
   * MSC4162 with its optional fields.
   *
   * @throws {MatrixError} 409 when a precondition does not hold, else as `upload`. Nothing changes then.
   */
  reset(command: ResetCommand): Promise<ResetResult>
  /**
   * A device's own pools as they stand, with every commit that was acknowledged before the call.
   *
   * @throws {MatrixError} 401 when the session ended meanwhile.
   */
  inspect(session: Session, page: { readonly limit: number; readonly from?: string }): Promise<PoolInspection>
}
