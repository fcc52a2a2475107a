/**
 * Storage of accounts and sessions. Every operation is one transaction, durable before its promise resolves. One that
 * only reads sees every commit that was acknowledged before it was called.
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
  /** The account when its password was checked. If the password has changed since, no session is opened. */
  readonly account: Account
  /** A device of the user, new or used before (open-session.ts). */
  readonly deviceId: DeviceId
  readonly displayName?: string
  readonly tokenHash: TokenHash
  /** The address of the login, which is the first time a device is seen. */
  readonly ip?: string
  readonly now: number
}

export type NewRegistrationToken = {
  readonly tokenHash: string
  /** Accounts that it may create; undefined: no limit. */
  readonly usesAllowed?: number
  readonly expiresTs?: number
  readonly now: number
}

export interface AccountStore {
  /** @throws {MatrixError} 400 M_USER_IN_USE; 401 M_FORBIDDEN when the registration token is not usable. */
  create(account: NewAccount): Promise<Account>
  find(userId: UserId): Promise<Account | undefined>
  /** Whether a registration token can create an account now (registration.ts). */
  registrationTokenValid(tokenHash: string, now: number): Promise<boolean>
  createRegistrationToken(token: NewRegistrationToken): Promise<void>
  /**
   * Creates, renews or restores a device and gives it a token (open-session.ts).
   *
   * @throws {MatrixError} 403 when the password has changed in the meantime; 400 above the number of devices, or for an
   *   ID that is the name of a key.
   */
  openSession(session: NewSession): Promise<Session>
  /** The session of a token; undefined when it has ended or never was one. */
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
