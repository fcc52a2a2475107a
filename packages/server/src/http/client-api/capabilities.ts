/**
 * GET /capabilities (client-server API, "Capabilities negotiation"). Clients assume that some omitted capabilities are
 * supported, so each one that this server lacks is listed. Room versions are omitted because there are no rooms.
 */
import { endpoint } from '../endpoint.ts'

const CAPABILITIES = {
  'm.change_password': { enabled: true },
  'm.set_displayname': { enabled: false },
  'm.set_avatar_url': { enabled: false },
  'm.profile_fields': { enabled: false },
  'm.3pid_changes': { enabled: false },
  'm.get_login_token': { enabled: false },
} as const

export const capabilities = endpoint({
  method: 'GET',
  path: '/capabilities',
  handle: () => ({ capabilities: CAPABILITIES }),
})
