/** POST /refresh: a new access token for a refresh token (client-server API, "Refreshing access tokens"). */
import { Type } from 'typebox'
import { refreshSession } from '../../accounts/refresh-tokens.ts'
import { publicEndpoint } from '../endpoint.ts'
import { encodeTokens } from './encode-login.ts'

export const refresh = publicEndpoint({
  method: 'POST',
  path: '/refresh',
  // New in v1.3.
  versions: ['v3', 'unstable'],
  body: Type.Object({ refresh_token: Type.String() }),
  async handle({ context, body }) {
    const { accounts } = context.store
    return encodeTokens(await refreshSession({ ...context, accounts }, body.refresh_token))
  },
})
