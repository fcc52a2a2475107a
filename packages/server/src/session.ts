/**
 * Who is calling: the account and device behind an access token. Every room of the domain takes it from here.
 */
import type { DeviceId, UserId } from '@latchkey/protocol'

declare const brand: unique symbol
/** The store's handle of an account. */
export type UserRef = number & { readonly [brand]: 'UserRef' }
/** The store's handle of a device. A device ID that is removed and used again keeps its handle within the retention. */
export type DeviceRef = number & { readonly [brand]: 'DeviceRef' }
/** SHA-256 of an access token, base64url: the only form in which tokens are stored. */
export type TokenHash = string & { readonly [brand]: 'TokenHash' }

export type Session = {
  readonly tokenHash: TokenHash
  readonly userRef: UserRef
  readonly userId: UserId
  readonly deviceRef: DeviceRef
  readonly deviceId: DeviceId
}

/** A place in the one stream of everything a sync reports: to-device messages, device lists, signals, account data. */
export type Position = number
