/** Registration tokens (client-server API, "Token-authenticated registration"; MSC3231), stored by their hash. */
import { randomBytes } from 'node:crypto'
import { hashToken } from './access-token.ts'
import type { AccountStore } from './port.ts'

/** Characters of the hash by which commands and logs name a token; it does not open anything. */
const ID_LENGTH = 12

export function registrationTokenId(token: string): string {
  return idOfHash(hashToken(token))
}

export function idOfHash(tokenHash: string): string {
  return tokenHash.slice(0, ID_LENGTH)
}

/**
 * Creates a registration token and returns it. It cannot be read again.
 *
 * @example await createRegistrationToken({ accounts, now: Date.now }, { usesAllowed: 1 })
 */
export async function createRegistrationToken(
  {
    accounts,
    now,
  }: { readonly accounts: Pick<AccountStore, 'createRegistrationToken'>; readonly now: () => number },
  limits: { readonly usesAllowed?: number; readonly expiresTs?: number } = {},
): Promise<string> {
  const token = randomBytes(18).toString('base64url')
  await accounts.createRegistrationToken({ ...limits, tokenHash: hashToken(token), now: now() })
  return token
}
