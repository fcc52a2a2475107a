/**
 * Sessions that end while their request is carried out: by logout, by removal of the device, or because the operator
 * locked the user (accounts/locked-users.ts).
 */
import { lockedSession, userLocked } from '../accounts/locked-users.ts'
import type { AccountStore } from '../accounts/port.ts'
import { MatrixError, unknownToken } from '../matrix-error.ts'
import type { Session } from '../session.ts'

type Sessions = Pick<AccountStore, 'session'>

/**
 * Checks the session again after the body has arrived: that may take a minute, and the session may have ended since.
 *
 * @throws {MatrixError} 401 M_UNKNOWN_TOKEN
 */
export async function requireValidSession(accounts: Sessions, session: Session | undefined): Promise<void> {
  if (session === undefined) return
  if ((await accounts.session(session.tokenHash)) === undefined) throw unknownToken()
}

/** Throws the error of a handler; M_USER_LOCKED if its session ended because the user is locked. */
export async function explainEnd(
  accounts: Sessions,
  session: Session | undefined,
  error: unknown,
): Promise<never> {
  if (session === undefined || !(error instanceof MatrixError) || error.errcode !== 'M_UNKNOWN_TOKEN')
    throw error
  await lockedSession(accounts, session.tokenHash)
  throw userLocked(401)
}
