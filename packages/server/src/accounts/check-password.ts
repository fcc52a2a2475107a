/**
 * Check of an account's password. An account that does not exist takes as long. Attempts to log in are counted by
 * login-limits.ts; attempts to confirm an operation within a session apart from them, so that no one else can use them
 * up.
 */
import { type UserId, utf8Length } from '@latchkey/protocol'
import type { TokenBuckets } from '../lib/token-bucket.ts'
import { limitExceeded } from '../matrix-error.ts'
import { MAX_PASSWORD_BYTES } from './password-policy.ts'
import type { Passwords } from './passwords.ts'
import type { Account, AccountStore } from './port.ts'

export type PasswordCheckDeps = { readonly accounts: AccountStore; readonly passwords: Passwords }

/**
 * Counts an attempt to confirm an operation within a session.
 *
 * @throws {MatrixError} 429 after too many tries.
 */
export function countConfirmation(tries: TokenBuckets | undefined, userId: UserId, now: number): void {
  const waitMs = tries?.take(userId, now) ?? 0
  if (waitMs > 0) throw limitExceeded('Too many tries to confirm with a password.', waitMs)
}

/**
 * The account, if the password is its own; undefined otherwise, or when there is no such account.
 *
 * @param isKnown whether the client is known to the account, and goes ahead of others that wait
 */
export async function checkPassword(
  { accounts, passwords }: PasswordCheckDeps,
  userId: UserId | undefined,
  password: string,
  isKnown = true,
): Promise<Account | undefined> {
  if (utf8Length(password) > MAX_PASSWORD_BYTES) return undefined
  const account = userId && (await accounts.find(userId))
  const right = await passwords.verify(password, account?.passwordHash, isKnown ? userId : undefined)
  return right ? account : undefined
}
