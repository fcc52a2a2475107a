/** Response to a login through `/login` or `/register`. `home_server` is deprecated, but some clients still read it. */
import type { DeviceId, JsonObject, UserId } from '@latchkey/protocol'
import type { SessionTokens } from '../../accounts/refresh-tokens.ts'
import type { Context } from '../../context.ts'

export function encodeLogin(
  { serverName }: Context,
  {
    userId,
    deviceId,
    tokens,
  }: { readonly userId: UserId; readonly deviceId: DeviceId; readonly tokens: SessionTokens },
): JsonObject {
  return { user_id: userId, ...encodeTokens(tokens), device_id: deviceId, home_server: serverName }
}

export function encodeTokens({ accessToken, refreshToken, expiresInMs }: SessionTokens): JsonObject {
  return {
    access_token: accessToken,
    ...(refreshToken !== undefined && { refresh_token: refreshToken }),
    ...(expiresInMs !== undefined && { expires_in_ms: expiresInMs }),
  }
}
