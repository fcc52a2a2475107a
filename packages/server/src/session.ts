/**
 * The session of a request: the account and device of an access token.
 */
import type { DeviceId, UserId } from '@latchkey/protocol'

declare const brand: unique symbol
/** The store's handle of an account. */
export type UserRef = number & { readonly [brand]: 'UserRef' }
/** The store's handle of a device. A removed device ID keeps its handle when it is used again within the retention. */
export type DeviceRef = number & { readonly [brand]: 'DeviceRef' }
/** SHA-256 of an access token, base64url: the only form in which tokens are stored. */
export type TokenHash = string & { readonly [brand]: 'TokenHash' }

export type Session = {
  readonly tokenHash: TokenHash
  readonly userRef: UserRef
  readonly userId: UserId
  readonly deviceRef: DeviceRef
  readonly deviceId: DeviceId
  /** Undefined: the access token does not expire. */
  readonly expiresTs?: number
  /** The access token that this one replaces, and that ends with its first use (accounts/refresh-tokens.ts). */
  readonly replaces?: TokenHash
}

/** A position in the single stream of sync changes: to-device messages, device lists, signals, account data. */
export type Position = number
