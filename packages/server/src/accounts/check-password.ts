/**
 * Whether somebody knows the password of an account. Every try counts against the account before it is made, so that
 * many at once are no way around the limit; an account that does not exist takes as long and counts the same.
 */
import { type UserId, utf8Length } from '@latchkey/protocol'
import type { TokenBuckets } from '../lib/token-bucket.ts'
import { limitExceeded } from '../matrix-error.ts'
import { MAX_PASSWORD_BYTES } from './password-policy.ts'
import type { Passwords } from './passwords.ts'
import type { Account, AccountStore } from './port.ts'

export type PasswordCheckDeps = {
  readonly accounts: AccountStore
  readonly passwords: Passwords
  readonly now: () => number
  /** Undefined: tries are not limited. */
  readonly triesPerAccount?: TokenBuckets
}

/**
 * The account, if the password is its own; undefined otherwise, or when there is no such account.
 *
 * @throws {MatrixError} 429 after too many tries.
 */
export async function checkPassword(
  { accounts, passwords, now, triesPerAccount }: PasswordCheckDeps,
  userId: UserId | undefined,
  password: string,
): Promise<Account | undefined> {
  const waitMs = (userId && triesPerAccount?.take(userId, now())) ?? 0
  if (waitMs > 0) throw limitExceeded('Too many tries to log in to this account.', waitMs)
  if (utf8Length(password) > MAX_PASSWORD_BYTES) return undefined
  const account = userId && accounts.find(userId)
  const right = await passwords.verify(password, account?.passwordHash)
  return right ? account : undefined
}
