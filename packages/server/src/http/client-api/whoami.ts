/** GET /account/whoami: user and device of the access token. */
import { endpoint } from '../endpoint.ts'

export const whoami = endpoint({
  method: 'GET',
  path: '/account/whoami',
  handle: ({ session }) => ({ user_id: session.userId, device_id: session.deviceId, is_guest: false }),
})
