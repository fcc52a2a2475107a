/**
 * Storage of accounts and sessions. Every operation is one transaction, durable before its promise resolves. One that
 * only reads sees every commit that was acknowledged before it was called.
 */
import type { DeviceId, UserId } from '@latchkey/protocol'
import type { Session, TokenHash, UserRef } from '../session.ts'

export type Account = {
  readonly userRef: UserRef
  readonly userId: UserId
  readonly passwordHash: string
  readonly isDeactivated?: true
}

export type NewAccount = {
  readonly userId: UserId
  readonly passwordHash: string
  /** Spends one use of a registration token, in the same transaction. */
  readonly registrationTokenHash?: string
  /** Logs a device in, in the same transaction. */
  readonly login?: NewLogin
  readonly finishes?: FinishedAuth
  readonly now: number
}

/** The hashes of an access token and of its refresh token. */
export type StoredTokens = {
  readonly tokenHash: TokenHash
  readonly expiresTs?: number
  readonly refreshHash?: TokenHash
}

/** New tokens for a refresh token. */
export type Refresh = { readonly refreshHash: TokenHash; readonly next: StoredTokens; readonly now: number }

export type NewLogin = StoredTokens & {
  /** A device of the user, new or used before (open-session.ts). */
  readonly deviceId: DeviceId
  readonly displayName?: string
  /** The address of the login, which is the first time a device is seen. */
  readonly ip?: string
  /** The network, which is then known to the account (known-networks.ts). */
  readonly networkHash?: string
  readonly now: number
}

export type NewSession = NewLogin & {
  /** The account when its password was checked. If the password has changed since, no session is opened. */
  readonly account: Account
}

export type NewRegistrationToken = {
  readonly tokenHash: string
  /** Accounts that it may create; undefined: no limit. */
  readonly usesAllowed?: number
  readonly expiresTs?: number
  readonly now: number
}

export type Deactivation = {
  readonly userRef: UserRef
  /** The session of the user that asks for it, which is proved; undefined for the operator. */
  readonly session?: Session
  readonly finishes?: FinishedAuth
  readonly now: number
}

export interface AccountStore {
  /**
   * @throws {MatrixError} 400 M_USER_IN_USE; 401 M_FORBIDDEN when the registration token is not usable.
   * @throws {AuthSessionEnded}
   */
  create(account: NewAccount): Promise<Account>
  find(userId: UserId): Promise<Account | undefined>
  /** Whether the account, or without one any account, has logged in from a network. */
  knowsNetwork(networkHash: string, userId?: UserId): Promise<boolean>
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
  /** The session of a token, also if it has expired; undefined when it has ended or never was one. */
  session(tokenHash: TokenHash): Promise<Session | undefined>
  /**
   * Adds tokens that replace those of a refresh token (refresh-tokens.ts). Undefined: the refresh token is not valid.
   *
   * @throws {MatrixError} 401 M_USER_LOCKED
   */
  refresh(refresh: Refresh): Promise<Session | undefined>
  /** Ends the tokens that a session has replaced. */
  confirmRefresh(session: Session): Promise<void>
  /** Replaces a hash by one of the same password, unless it has changed. */
  replaceHash(change: {
    readonly userRef: UserRef
    readonly from: string
    readonly to: string
  }): Promise<void>
  /** Sets a password; with `endOthers`, removes every device but the session's. */
  setPassword(change: {
    readonly session: Session
    readonly passwordHash: string
    readonly endOthers: boolean
    readonly finishes?: FinishedAuth
    readonly now: number
  }): Promise<void>
  /** Ends an account (deactivate.ts). Idempotent. */
  deactivate(deactivation: Deactivation): Promise<void>
  /** Notes that a device was seen. Not awaited by requests; lost at worst. */
  seen(session: Session, ip: string, now: number): void
}

/** The owner of sessions: those of one owner make room for each other, and never for a stranger's. */
export type AuthOwner = { readonly kind: 'user' | 'network'; readonly name: string }

/** A session of user-interactive authentication (auth-session.ts). */
export type NewAuthSession = {
  readonly idHash: string
  readonly owner: AuthOwner
  /** The hash of the method, the path and the user. */
  readonly operation: string
  readonly sealed: Uint8Array
  readonly expiresTs: number
  readonly now: number
}

export type StoredAuthSession = { readonly operation: string; readonly sealed: Uint8Array }

/**
 * The end of a session of user-interactive authentication, in the transaction of the operation that it was for. An
 * operation throws AuthSessionEnded, and changes nothing, when another one has finished the session.
 */
export type FinishedAuth = {
  readonly idHash: string
  /** The memory with the answer. */
  readonly sealed: Uint8Array
  readonly expiresTs: number
  readonly now: number
}

/** The session of an operation has been finished by another request, or has expired. The operation changed nothing. */
export class AuthSessionEnded extends Error {
  override readonly name = 'AuthSessionEnded'
}

export interface AuthSessionStore {
  /** Keeps a session, and drops what is over the bounds (auth-session-bounds.ts). */
  add(session: NewAuthSession): Promise<void>
  /** Undefined when there is none, or it has expired. */
  find(idHash: string, now: number): Promise<StoredAuthSession | undefined>
}
