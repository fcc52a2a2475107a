/**
 * Looks up the session of a request: `Authorization: Bearer`, or `?access_token=` from old clients, never both.
 * Tokens are looked up by hash; the token itself is neither stored nor logged.
 */
import type { FastifyRequest } from 'fastify'
import { hashToken } from '../accounts/access-token.ts'
import { lockedSession, userLocked } from '../accounts/locked-users.ts'
import type { AccountStore } from '../accounts/port.ts'
import { hasExpired } from '../accounts/refresh-tokens.ts'
import type { Context } from '../context.ts'
import { expiredToken, MatrixError, missingToken } from '../matrix-error.ts'
import type { Session } from '../session.ts'
import type { Endpoint } from './endpoint.ts'

/** @throws {MatrixError} 401 M_MISSING_TOKEN, M_UNKNOWN_TOKEN or M_USER_LOCKED. */
export async function authenticate(
  { store: { accounts }, now }: Pick<Context, 'store' | 'now'>,
  request: FastifyRequest,
  query: Readonly<Record<string, string>>,
  { allowsLocked }: Pick<Endpoint, 'allowsLocked'>,
): Promise<Session> {
  const header = request.headers.authorization
  const parameter = query['access_token']
  if (header !== undefined && parameter !== undefined) {
    throw new MatrixError(
      401,
      'M_MISSING_TOKEN',
      'Two access tokens: expected one, either in the header or in the query.',
    )
  }
  const token = header === undefined ? parameter : bearer(header)
  if (token === undefined || token === '') throw missingToken()
  const tokenHash = hashToken(token)
  const session = await accounts.session(tokenHash)
  if (session !== undefined) {
    if (hasExpired(session, now())) throw expiredToken()
    if (session.replaces !== undefined) await accounts.confirmRefresh(session)
    return session
  }
  const locked = await lockedSession(accounts, tokenHash)
  if (allowsLocked !== true) throw userLocked(401)
  return locked
}

/** The session of an access token, also an expired one, in the header of a request that does not need it. */
export async function presentedSession(
  accounts: AccountStore,
  { headers: { authorization } }: FastifyRequest,
): Promise<Session | undefined> {
  const token = authorization === undefined ? undefined : bearer(authorization)
  return token === undefined ? undefined : accounts.session(hashToken(token))
}

function bearer(header: string): string | undefined {
  return /^Bearer +(\S+)$/i.exec(header)?.[1]
}
