/**
 * Storage of devices, device lists and cross-signing. Every operation is one transaction, durable before its promise
 * resolves. One that only reads sees every commit that was acknowledged before it was called.
 */
import type { DeviceId, UserId } from '@latchkey/protocol'
import type { FinishedAuth } from '../accounts/port.ts'
import type { DeviceRef, Position, Session, UserRef } from '../session.ts'

export type Device = {
  readonly deviceRef: DeviceRef
  readonly deviceId: DeviceId
  readonly displayName?: string
  readonly lastSeenTs: number
  readonly lastSeenIp?: string
}

/** A device as `/keys/query` needs it. `json` is the uploaded object's canonical text. */
export type PublishedDevice = {
  readonly deviceId: DeviceId
  readonly displayName?: string
  readonly json: string
}

export type CrossSigningUsage = 'master' | 'self_signing' | 'user_signing'

export type CrossSigningKey = {
  readonly usage: CrossSigningUsage
  /** Unpadded base64. */
  readonly publicKey: string
  /** The uploaded object's canonical text. */
  readonly json: string
}

/** A signature that was added to a device or a cross-signing key of a user, apart from those in its own text. */
export type KeySignature = {
  /** A device ID, or a cross-signing public key. */
  readonly keyId: string
  readonly signer: UserId
  /** `ed25519:...` */
  readonly signerKeyId: string
  readonly signature: string
}

/** Published keys of one user. */
export type PublishedKeys = {
  readonly userRef: UserRef
  readonly devices: readonly PublishedDevice[]
  readonly crossSigning: readonly CrossSigningKey[]
  /** By the user, and by the viewer for whom they were read. */
  readonly signatures: readonly KeySignature[]
}

/** Cross-signing keys to store, and signatures by the user's devices on the master key among them. */
export type SignedCrossSigning = {
  readonly keys: readonly CrossSigningKey[]
  readonly signatures: readonly KeySignature[]
}

export interface DeviceStore {
  list(user: UserRef): Promise<readonly Device[]>
  get(user: UserRef, deviceId: DeviceId): Promise<Device | undefined>
  /** False when there is no such device. Like all writes for a session: 401 when the session has ended. */
  rename(session: Session, deviceId: DeviceId, displayName: string): Promise<boolean>
  /** Removes devices of the session's user (remove.ts). Unknown IDs are ignored. */
  remove(
    session: Session,
    deviceIds: readonly DeviceId[],
    now: number,
    finishes?: FinishedAuth,
  ): Promise<void>
  removeAll(session: Session, now: number): Promise<void>

  /** Published keys of local users, at one instant. Users that do not exist are missing. */
  published(userIds: readonly UserId[], viewer: UserRef): Promise<ReadonlyMap<UserId, PublishedKeys>>
  /**
   * Makes the session's user track local users, so that their changes reach the user's syncs: first keys too, when
   * there is no account of that name yet (tracking.ts). Durable before it resolves.
   */
  track(session: Session, userIds: readonly UserId[]): Promise<void>
  /** The users whom `user` tracks and whose lists changed after `since`, up to and including `upTo`. */
  changedSince(user: UserRef, since: Position, upTo: Position): Promise<readonly UserId[]>

  /**
   * Replaces the given cross-signing keys of a user (replace-keys.ts).
   *
   * @param seenMaster the public master key on which the decision to allow this was based
   * @throws {MatrixError} 403 M_FORBIDDEN when a public key is the ID of a device, or the master key has changed.
   */
  putCrossSigning(
    session: Session,
    changed: SignedCrossSigning,
    seenMaster: string | undefined,
    finishes?: FinishedAuth,
  ): Promise<void>
  /** Adds signatures to keys of `target` (add-signatures.ts). */
  addSignatures(session: Session, target: UserRef, signatures: readonly KeySignature[]): Promise<void>
}
