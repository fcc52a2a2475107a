/**
 * Access tokens that expire, and the refresh tokens that replace them (client-server API, "Refreshing access tokens").
 *
 *     login -> A1, R1    refresh with R1 -> A2, R2    first use of A2 or R2 -> A1 and R1 end
 *
 * Until A2 or R2 is used, A1 and R1 stay valid: the answer may have been lost, and the client refreshes with R1 again,
 * which ends the unused A2 and R2. Both tokens of a pair are stored as hashes, in one row of the device. An expired
 * token is kept, because it still shows which device the client is (`soft_logout`).
 */
import { randomBytes } from 'node:crypto'
import { unknownToken } from '../matrix-error.ts'
import type { Session } from '../session.ts'
import { hashToken, newAccessToken } from './access-token.ts'
import type { AccountStore, StoredTokens } from './port.ts'

/** The tokens of a login or refresh, as the client receives them. */
export type SessionTokens = {
  readonly accessToken: string
  readonly refreshToken?: string
  readonly expiresInMs?: number
}

export type TokenRules = {
  readonly now: () => number
  /** Undefined lifetime: access tokens do not expire. */
  readonly config: { readonly accessTokenLifetimeMs?: number }
}

/** @param refreshable whether the client asked for a refresh token; it gets none for a token that does not expire */
export function newTokens(
  { now, config: { accessTokenLifetimeMs: expiresInMs } }: TokenRules,
  refreshable: boolean,
): { readonly tokens: SessionTokens; readonly stored: StoredTokens } {
  const accessToken = newAccessToken()
  const tokenHash = hashToken(accessToken)
  if (expiresInMs === undefined) return { tokens: { accessToken }, stored: { tokenHash } }
  const expires = { tokenHash, expiresTs: now() + expiresInMs }
  if (!refreshable) return { tokens: { accessToken, expiresInMs }, stored: expires }
  const refreshToken = `lkr_${randomBytes(32).toString('base64url')}`
  return {
    tokens: { accessToken, refreshToken, expiresInMs },
    stored: { ...expires, refreshHash: hashToken(refreshToken) },
  }
}

/**
 * Replaces the tokens of a session.
 *
 * @throws {MatrixError} 401 M_UNKNOWN_TOKEN when the refresh token has been replaced or its device removed, 401
 *   M_USER_LOCKED.
 */
export async function refreshSession(
  { accounts, ...rules }: TokenRules & { readonly accounts: Pick<AccountStore, 'refresh'> },
  refreshToken: string,
): Promise<SessionTokens> {
  const { tokens, stored } = newTokens(rules, true)
  const session = await accounts.refresh({
    refreshHash: hashToken(refreshToken),
    next: stored,
    now: rules.now(),
  })
  if (session === undefined) throw unknownToken()
  return tokens
}

export function hasExpired({ expiresTs }: Session, now: number): boolean {
  return expiresTs !== undefined && expiresTs <= now
}
