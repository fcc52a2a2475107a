/**
 * A login with a password. A hash that was made with less than the present cost is replaced after the login, which
 * alone knows the password.
 */
import { MatrixError } from '../matrix-error.ts'
import type { UserId } from '@latchkey/protocol'
import { checkPassword, type PasswordCheckDeps } from './check-password.ts'
import { logIn, type LoginDeps, type LoginDevice } from './log-in.ts'
import type { Account } from './port.ts'
import type { SessionTokens } from './refresh-tokens.ts'

export type PasswordLogin = {
  readonly userId: UserId | undefined
  readonly password: string
  readonly isKnown: boolean | undefined
  readonly device: LoginDevice
  readonly ip: string
}

type OpenedLogin = { readonly account: Account; readonly tokens: SessionTokens }

/**
 * Undefined when the password is wrong, or there is no such account.
 *
 * @throws {MatrixError} as `logIn`.
 */
export async function logInWithPassword(
  deps: LoginDeps & PasswordCheckDeps,
  login: PasswordLogin,
): Promise<OpenedLogin | undefined> {
  try {
    return await attempt(deps, login)
  } catch (error) {
    if (!(error instanceof MatrixError && error.status === 403)) throw error
    // The hash changed between the check and the login: another login has replaced it, or the password is another one.
    return attempt(deps, login)
  }
}

async function attempt(
  deps: LoginDeps & PasswordCheckDeps,
  { userId, password, isKnown, device, ip }: PasswordLogin,
): Promise<OpenedLogin | undefined> {
  const account = await checkPassword(deps, userId, password, isKnown)
  if (account === undefined) return undefined
  const tokens = await logIn(deps, account, device, ip)
  if (deps.passwords.isOutdated(account.passwordHash)) await raiseCost(deps, account, password)
  return { account, tokens }
}

/** After a failure the login stands, and the next one tries again. */
async function raiseCost(
  { accounts, passwords }: PasswordCheckDeps,
  { userRef, passwordHash }: Account,
  password: string,
): Promise<void> {
  try {
    await accounts.replaceHash({ userRef, from: passwordHash, to: await passwords.hash(password, true) })
  } catch (error) {
    if (!(error instanceof MatrixError)) throw error
  }
}
