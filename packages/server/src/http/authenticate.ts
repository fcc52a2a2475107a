/**
 * Looks up the session of a request: `Authorization: Bearer`, or `?access_token=` from old clients, never both.
 * Tokens are looked up by hash; the token itself is neither stored nor logged.
 */
import type { FastifyRequest } from 'fastify'
import { hashToken } from '../accounts/access-token.ts'
import type { AccountStore } from '../accounts/port.ts'
import { MatrixError, missingToken, unknownToken } from '../matrix-error.ts'
import type { Session } from '../session.ts'

/** @throws {MatrixError} 401 M_MISSING_TOKEN or M_UNKNOWN_TOKEN. */
export async function authenticate(
  accounts: AccountStore,
  request: FastifyRequest,
  query: Readonly<Record<string, string>>,
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
  const session = await accounts.session(hashToken(token))
  if (session === undefined) throw unknownToken()
  return session
}

/** The session of the access token in the header of a request that does not need one; undefined without a valid token. */
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
