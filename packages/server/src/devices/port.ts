/**
 * What devices, device lists and cross-signing need from storage. Every operation is one transaction, durable before
 * its promise resolves; the synchronous ones read what is committed.
 */
import type { DeviceId, JsonObject, UserId } from '@latchkey/protocol'
import type { DeviceRef, Position, Session, UserRef } from '../session.ts'

export type Device = {
  readonly deviceRef: DeviceRef
  readonly deviceId: DeviceId
  readonly displayName?: string
  readonly lastSeenTs?: number
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

/** A signature that somebody put on a device or a cross-signing key of a user, apart from those in its own text. */
export type KeySignature = {
  /** A device ID, or a cross-signing public key. */
  readonly keyId: string
  readonly signer: UserId
  /** `ed25519:...` */
  readonly signerKeyId: string
  readonly signature: string
}

/** Everything that can be known of one user's keys. */
export type PublishedKeys = {
  readonly userRef: UserRef
  readonly devices: readonly PublishedDevice[]
  readonly crossSigning: readonly CrossSigningKey[]
  readonly signatures: readonly KeySignature[]
}

export interface DeviceStore {
  list(user: UserRef): readonly Device[]
  get(user: UserRef, deviceId: DeviceId): Device | undefined
  /** False when there is no such device. */
  rename(user: UserRef, deviceId: DeviceId, displayName: string): Promise<boolean>
  /** Ends the sessions of devices and removes them with their keys and messages. Unknown IDs are passed over. */
  remove(user: UserRef, deviceIds: readonly DeviceId[], now: number): Promise<void>
  removeAll(user: UserRef, now: number): Promise<void>

  /** What is published of a local user; undefined when there is no such user. */
  published(userId: UserId): PublishedKeys | undefined
  /** Notes that an observer asked for users' keys, so that she hears of their changes. Durable before it resolves. */
  track(observer: UserRef, targets: readonly UserRef[]): Promise<void>
  /** Users of whom `session`'s user hears and whose lists changed after `since`, up to and including `upTo`. */
  changedSince(user: UserRef, since: Position, upTo: Position): readonly UserId[]

  /**
   * Replaces the given cross-signing keys of a user.
   *
   * @param seenMaster the public master key on which the decision to allow this was based
   * @throws {MatrixError} 403 M_DEVICE_ID_IN_USE; 403 M_FORBIDDEN when the master key is another one by now.
   */
  putCrossSigning(
    session: Session,
    keys: readonly CrossSigningKey[],
    seenMaster: string | undefined,
  ): Promise<void>
  /** Adds signatures to keys of `target`. */
  addSignatures(session: Session, target: UserRef, signatures: readonly KeySignature[]): Promise<void>
}

/** An object of `device_keys` or a cross-signing key, decoded. */
export type SignedObject = JsonObject
