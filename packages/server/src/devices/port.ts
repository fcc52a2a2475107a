/**
 * What devices, device lists and cross-signing need from storage. Every operation is one transaction, durable before
 * its promise resolves; those that only read see every commit that was acknowledged before they were called.
 */
import type { DeviceId, UserId } from '@latchkey/protocol'
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
  list(user: UserRef): Promise<readonly Device[]>
  get(user: UserRef, deviceId: DeviceId): Promise<Device | undefined>
  /** False when there is no such device. As everything that writes for a session: 401 when that holds no more. */
  rename(session: Session, deviceId: DeviceId, displayName: string): Promise<boolean>
  /** Ends the sessions of own devices and removes them with their keys and messages. Unknown IDs are passed over. */
  remove(session: Session, deviceIds: readonly DeviceId[], now: number): Promise<void>
  removeAll(session: Session, now: number): Promise<void>

  /** What is published of local users, at one instant; without those that do not exist. */
  published(userIds: readonly UserId[]): Promise<ReadonlyMap<UserId, PublishedKeys>>
  /**
   * Notes that a user asked for local users' keys, so that she hears of their changes: of the first ones too, when
   * there is no such user yet. Durable before it resolves.
   */
  track(session: Session, userIds: readonly UserId[]): Promise<void>
  /** Users of whom `session`'s user hears and whose lists changed after `since`, up to and including `upTo`. */
  changedSince(user: UserRef, since: Position, upTo: Position): Promise<readonly UserId[]>

  /**
   * Replaces the given cross-signing keys of a user.
   *
   * @param seenMaster the public master key on which the decision to allow this was based
   * @throws {MatrixError} 403 M_FORBIDDEN when a public key is the ID of a device, or the master key is another one by now.
   */
  putCrossSigning(
    session: Session,
    keys: readonly CrossSigningKey[],
    seenMaster: string | undefined,
  ): Promise<void>
  /** Adds signatures to keys of `target`. */
  addSignatures(session: Session, target: UserRef, signatures: readonly KeySignature[]): Promise<void>
}
