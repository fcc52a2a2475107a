/** Response to a login through `/login` or `/register`. `home_server` is deprecated, but some clients still read it. */
import type { Context } from '../../context.ts'
import type { Session } from '../../session.ts'

export function encodeLogin(
  { serverName }: Context,
  { session, accessToken }: { readonly session: Session; readonly accessToken: string },
): object {
  return {
    user_id: session.userId,
    access_token: accessToken,
    device_id: session.deviceId,
    home_server: serverName,
  }
}
