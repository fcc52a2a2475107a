/**
 * The storage of the key pools. A change of a device's pools is one transaction:
 *
 *     prove the session -> lock -> load the facts -> decide (the domain) -> save the changes -> commit -> answer
 *
 * A store decides nothing. `decide` is pure and synchronous and runs before the first write; a store may run it again
 * in another transaction, after a deadlock for instance. Claims are the hot path and have an operation of their own;
 * their rules are `claim.ts`, `depletion.ts` and `wake.ts`. The contract suite holds every store to the same
 * behaviour.
 */
import type { Algorithm, KeyId, KeyMaterial, KeyName } from '@latchkey/protocol'
import type { MatrixError } from '../matrix-error.ts'
import type { Session } from '../session.ts'
import type { ClaimCommand, ClaimResult, PoolInspection, UploadedDeviceKeys } from './commands.ts'
import type { RefusedTry } from './conflict.ts'
import type { DayCounts } from './day-count.ts'
import type { Identity, IdentityPart } from './identity.ts'
import type { HashedKey, MaterialHash, Removal, UploadedKey } from './key.ts'
import type { KnownKey, ListedKey, MetKey, NamedKey } from './log-key.ts'

export interface PoolStore {
  /**
   * Changes the pools of a session's device as `decide` says. Resolves after the commit.
   *
   * @throws {MatrixError} 401 when the session ended meanwhile, 503 when the store failed. Nothing is changed then.
   */
  change<Answer>(session: Session, wanted: WantedFacts, decide: Decide<Answer>): Promise<Decision<Answer>>
  /** Issues one key per target. A key is returned by at most one claim. */
  claim(command: ClaimCommand): Promise<ClaimResult>
  /**
   * A device's own pools, with every commit acknowledged before the call.
   *
   * @throws {MatrixError} 401 when the session ended meanwhile.
   */
  inspect(session: Session, page: { readonly limit: number; readonly from?: string }): Promise<PoolInspection>
}

/** Pure: the same facts give the same decision. It throws only for a bug. */
export type Decide<Answer> = (facts: DeviceFacts) => Decision<Answer>

export type Decision<Answer> =
  | { readonly kind: 'answer'; readonly answer: Answer; readonly changes: DeviceChanges }
  /** Nothing of the request is stored but what `changes` remembers of its refusal. */
  | { readonly kind: 'refusal'; readonly refusal: MatrixError; readonly changes: DeviceChanges }
  /** Signatures by this identity have to be checked first, outside of the transaction (signed-keys.ts). */
  | { readonly kind: 'verify'; readonly identity: Identity; readonly changes: DeviceChanges }

/** The part of the device's pools that a request may meet; the store loads no more than that. */
export type WantedFacts = {
  /** Their rows in the log, by material and by key ID. */
  readonly oneTimeKeys: readonly HashedKey[]
  /** Whether their material was a fallback key before. */
  readonly fallbackKeys: readonly HashedKey[]
  /** Whether the device gave up a part of this identity. A store with user locks locks the user. */
  readonly deviceKeys?: UploadedDeviceKeys
  /** Which available keys are listed: all of them, or those with these names. */
  readonly available: 'all' | readonly KeyName[]
  /** The available keys by which a pool may exceed this number are listed, the oldest first. */
  readonly keysPerPool: number
  /** The remembered answer of a reset, and how many are remembered that are newer than `since`. */
  readonly replay?: { readonly requestId: string; readonly since: number }
}

/** A device and its pools under their locks. */
export type DeviceFacts = {
  readonly epoch: string
  readonly version: number
  readonly generation: number
  /** The canonical text of the device keys; undefined before the first upload. */
  readonly deviceKeys: string | undefined
  readonly identity: Identity
  /** The device has changed its identity before: its keys have to be signed. */
  readonly identityChanged: boolean
  /** The parts of the wanted identity that the device gave up. */
  readonly givenUp: ReadonlySet<IdentityPart>
  readonly counts: DayCounts
  /** The last upload that was refused for a conflict. */
  readonly refused: RefusedTry | undefined
  /** The answer remembered under the wanted request ID (reset-replay.ts), and how many answers are remembered. */
  readonly replay: { readonly answer: string; readonly ts: number } | undefined
  readonly replaysRemembered: number
  /** Every pool that the device has. */
  readonly pools: readonly PoolFacts[]
}

export type PoolFacts = {
  readonly algorithm: Algorithm
  /** Available one-time keys. */
  readonly count: number
  /** 32 bytes */
  readonly digest: Uint8Array
  readonly fallback: { readonly material: KeyMaterial; readonly used: boolean } | undefined
  /**
   * The logged keys with the material of a wanted key that may be in this log (one-place.ts), except withdrawn ones, by
   * the hash of the material.
   */
  readonly met: ReadonlyMap<MaterialHash, MetKey>
  /** The available keys with the ID of a wanted key, or with a wanted name. */
  readonly availableById: ReadonlyMap<KeyId, NamedKey>
  /** How many keys were added to the log after the last issued key with the ID of a wanted key. */
  readonly addedSinceIssued: ReadonlyMap<KeyId, number>
  /** The oldest available keys: as many as may have to be evicted. In upload order. */
  readonly oldest: readonly KnownKey[]
  /** All available keys in upload order, where all are wanted. */
  readonly available: readonly ListedKey[]
  /** The materials of wanted keys that were fallback keys of the pool, and were replaced or purged (one-place.ts). */
  readonly formerFallbacks: ReadonlySet<MaterialHash>
}

/** The changes of a decision. A store saves all of them or none. */
export type DeviceChanges = {
  /** Undefined when nothing of the pools changes. */
  readonly pools?: PoolsChange
  /** The use of the daily budgets of the device and its user; undefined when nothing changes. */
  readonly counts?: DayCounts
  /** New device keys: the user's device list changes. */
  readonly deviceKeys?: UploadedDeviceKeys
  /** The identity changed: the previous parts, which the device never uses again; signatures on it are deleted. */
  readonly givenUp?: Identity
  /** The refused upload to remember; `forget`: the next conflict is a first try. */
  readonly refused?: RefusedTry | 'forget'
  /** The answer to replay. Answers up to `forgetUpTo` are dropped. */
  readonly replay?: {
    readonly requestId: string
    readonly answer: string
    readonly ts: number
    readonly forgetUpTo: number
  }
  /** The answer carries all counts: the device knows them from now on (wake.ts). */
  readonly countsAcknowledged?: boolean
}

export const NO_CHANGES: DeviceChanges = {}

export type PoolsChange = {
  /** Milliseconds since 1970. */
  readonly now: number
  readonly version: number
  readonly generation: number
  /** The device's sync is woken (wake.ts). */
  readonly signal: boolean
  /** Pools that changed, new ones among them. */
  readonly pools: readonly PoolChange[]
}

export type PoolChange = {
  readonly algorithm: Algorithm
  readonly isNew: boolean
  /** After the change. */
  readonly count: number
  readonly digest: Uint8Array
  /** The count, where keys were added; else undefined. Of it the reserve of the pool is computed (claim.ts). */
  readonly filled: number | undefined
  /** Keys that leave one by one. */
  readonly removed: ReadonlyMap<number, Removal>
  /** After those: every available key except the kept ones leaves. */
  readonly cleared: { readonly as: Removal; readonly kept: readonly number[] } | undefined
  /** Issued keys are no longer shown to the device: another installation uses it now. */
  readonly hidesIssued: boolean
  /** Keys to append, in this order. A key that is evicted by the same request is stored too, as evicted. */
  readonly added: readonly { readonly key: HashedKey; readonly state: 'available' | 'evicted' }[]
  /** The fallback key that the pool had is remembered in this state. */
  readonly formerFallback: Removal | undefined
  /** The new fallback key; undefined keeps the one that the pool has, if it is not remembered as a former one. */
  readonly fallback: UploadedKey | undefined
}
