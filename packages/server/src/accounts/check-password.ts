/**
 * Check of an account's password. Every attempt is counted before it is made, so that many at once do not evade the
 * limit. An account that does not exist takes as long and counts the same.
 *
 * Login attempts are counted per account and address, so that those of another person do not lock the owner out. Only
 * together with attempts from many other addresses do they reach the limit of the account. Attempts to confirm an
 * operation within a session are counted separately, so that no one else can use them up.
 */
import { type UserId, utf8Length } from '@latchkey/protocol'
import type { TokenBuckets } from '../lib/token-bucket.ts'
import { limitExceeded } from '../matrix-error.ts'
import { MAX_PASSWORD_BYTES } from './password-policy.ts'
import type { Passwords } from './passwords.ts'
import type { Account, AccountStore } from './port.ts'

export type PasswordCheckDeps = { readonly accounts: AccountStore; readonly passwords: Passwords }

/** Undefined: attempts are not limited. */
export type LoginLimits = {
  readonly loginPerAccount?: TokenBuckets
  readonly loginPerAccountInAll?: TokenBuckets
}

/**
 * Counts a login attempt. One above the limit of its address does not count towards the limit of the account.
 *
 * @throws {MatrixError} 429 after too many tries.
 */
export function countLogin(
  { loginPerAccount, loginPerAccountInAll }: LoginLimits,
  userId: UserId,
  ip: string,
  now: number,
): void {
  const waitMs = loginPerAccount?.take(`${ip} ${userId}`, now) || loginPerAccountInAll?.take(userId, now) || 0
  if (waitMs > 0) throw limitExceeded('Too many tries to log in to this account.', waitMs)
}

/**
 * Counts an attempt to confirm an operation within a session.
 *
 * @throws {MatrixError} 429 after too many tries.
 */
export function countConfirmation(tries: TokenBuckets | undefined, userId: UserId, now: number): void {
  const waitMs = tries?.take(userId, now) ?? 0
  if (waitMs > 0) throw limitExceeded('Too many tries to confirm with a password.', waitMs)
}

/** The account, if the password is its own; undefined otherwise, or when there is no such account. */
export async function checkPassword(
  { accounts, passwords }: PasswordCheckDeps,
  userId: UserId | undefined,
  password: string,
): Promise<Account | undefined> {
  if (utf8Length(password) > MAX_PASSWORD_BYTES) return undefined
  const account = userId && (await accounts.find(userId))
  const right = await passwords.verify(password, account?.passwordHash)
  return right ? account : undefined
}
