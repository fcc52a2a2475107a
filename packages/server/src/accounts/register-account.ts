/** Creation of an account, by `/register` or by the operator's command. */
import type { UserId } from '@latchkey/protocol'
import { requireGoodPassword } from './password-policy.ts'
import type { Passwords } from './passwords.ts'
import type { Account, AccountStore, NewAccount } from './port.ts'
import { nameTaken } from './registration.ts'
import { newUserId } from './user-name.ts'

export type RegistrationDeps = {
  readonly accounts: Pick<AccountStore, 'create' | 'find'>
  readonly passwords: Passwords
  readonly serverName: string
  readonly now: () => number
  /** In characters. */
  readonly passwordMinLength: number
}

/**
 * The user ID that a new account of this name would have.
 *
 * @throws {MatrixError} 400 M_INVALID_USERNAME or M_USER_IN_USE.
 */
export async function requireFreeName(
  { accounts, serverName }: { readonly accounts: Pick<AccountStore, 'find'>; readonly serverName: string },
  localpart: string,
): Promise<UserId> {
  const userId = newUserId(localpart, serverName)
  if ((await accounts.find(userId)) !== undefined) throw nameTaken()
  return userId
}

/**
 * Creates an account; durable when it resolves.
 *
 * @throws {MatrixError} 400 M_INVALID_USERNAME, M_USER_IN_USE, M_WEAK_PASSWORD or M_INVALID_PARAM; 401 M_FORBIDDEN when
 * the registration token is not usable.
 */
export async function registerAccount(
  deps: RegistrationDeps,
  account: Pick<NewAccount, 'registrationTokenHash' | 'login' | 'finishes'> & {
    readonly localpart: string
    readonly password: string
  },
): Promise<Account> {
  const { localpart, password, ...rest } = account
  const userId = await requireFreeName(deps, localpart)
  requireGoodPassword(password, deps.passwordMinLength)
  const passwordHash = await deps.passwords.hash(password)
  return deps.accounts.create({ userId, passwordHash, ...rest, now: deps.now() })
}
