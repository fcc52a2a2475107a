/**
 * What accounts and sessions need from storage. Every operation is one transaction, durable before its promise
 * resolves; those that only read see every commit that was acknowledged before they were called.
 */
import type { DeviceId, UserId } from '@latchkey/protocol'
import type { Session, TokenHash, UserRef } from '../session.ts'

export type Account = { readonly userRef: UserRef; readonly userId: UserId; readonly passwordHash: string }

export type NewAccount = {
  readonly userId: UserId
  readonly passwordHash: string
  /** Spends one use of a registration token, in the same transaction. */
  readonly registrationTokenHash?: string
  readonly now: number
}

export type NewSession = {
  /** The account as it was when its password was checked: a password that was changed since opens no session. */
  readonly account: Account
  /** An existing device of the user is used again, with its keys; its earlier tokens end. */
  readonly deviceId: DeviceId
  readonly displayName?: string
  readonly tokenHash: TokenHash
  /** The address that logs in: a login is the first time a device is seen. */
  readonly ip?: string
  readonly now: number
}

export type NewRegistrationToken = {
  readonly tokenHash: string
  /** How many accounts it may make; undefined is no limit. */
  readonly usesAllowed?: number
  readonly expiresTs?: number
  readonly now: number
}

export interface AccountStore {
  /** @throws {MatrixError} 400 M_USER_IN_USE; 401 M_FORBIDDEN when the registration token is not valid (any more). */
  create(account: NewAccount): Promise<Account>
  find(userId: UserId): Promise<Account | undefined>
  /** Whether a registration token could make an account now. */
  registrationTokenValid(tokenHash: string, now: number): Promise<boolean>
  createRegistrationToken(token: NewRegistrationToken): Promise<void>
  /**
   * Makes or re-uses a device and gives it a token.
   *
   * @throws {MatrixError} 403 when the password has changed meanwhile, 400 over the number of devices.
   */
  openSession(session: NewSession): Promise<Session>
  /** The session of a token; undefined when there is none (any more). */
  session(tokenHash: TokenHash): Promise<Session | undefined>
  /** Sets a password; with `endOthers`, removes every device but the session's. */
  setPassword(change: {
    readonly session: Session
    readonly passwordHash: string
    readonly endOthers: boolean
    readonly now: number
  }): Promise<void>
  /** Notes that a device was seen. Not awaited by requests; lost at worst. */
  seen(session: Session, ip: string, now: number): void
}
