/**
 * Locked users (client-server API, "Account locking"): their requests get 401 M_USER_LOCKED with `soft_logout`, so that
 * clients keep their keys until the operator unlocks them. Only logout is still allowed. Others may claim keys of the
 * devices and send to them: they cannot know of the lock, and the messages wait.
 *
 * While a user is locked, the stored hashes of their tokens have a prefix. Every proof of a session fails without a
 * look at the user, also in transactions that had already begun, and an unlock makes the same tokens valid again.
 */
import { MatrixError, unknownToken } from '../matrix-error.ts'
import type { Session, TokenHash } from '../session.ts'
import type { AccountStore } from './port.ts'

/** No hash begins with it: they are base64url. */
export const LOCKED_PREFIX = 'locked:'

export function lockedHash(tokenHash: TokenHash): TokenHash {
  return `${LOCKED_PREFIX}${tokenHash}` as TokenHash
}

export function userLocked(status: 401 | 403): MatrixError {
  return new MatrixError(
    status,
    'M_USER_LOCKED',
    'This account was locked by the operator of the server; ask them to unlock it.',
    { soft_logout: true },
  )
}

/**
 * The session of a token that is not valid, if that is because its user is locked.
 *
 * @throws {MatrixError} 401 M_UNKNOWN_TOKEN
 */
export async function lockedSession(
  accounts: Pick<AccountStore, 'session'>,
  tokenHash: TokenHash,
): Promise<Session> {
  const session = await accounts.session(lockedHash(tokenHash))
  if (session === undefined) throw unknownToken()
  return session
}
