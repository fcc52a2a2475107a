/** Response to a login through `/login` or `/register`. `home_server` is deprecated, but some clients still read it. */
import type { DeviceId, JsonObject, UserId } from '@latchkey/protocol'
import type { Context } from '../../context.ts'

export function encodeLogin(
  { serverName }: Context,
  {
    userId,
    deviceId,
    accessToken,
  }: { readonly userId: UserId; readonly deviceId: DeviceId; readonly accessToken: string },
): JsonObject {
  return { user_id: userId, access_token: accessToken, device_id: deviceId, home_server: serverName }
}
