/**
 * GET /room_keys/version (client-server API, "Server-side key backups"): always 404. Clients request it at every start.
 */
import { notFound } from '../../matrix-error.ts'
import { endpoint } from '../endpoint.ts'

export const roomKeysVersion = endpoint({
  method: 'GET',
  path: '/room_keys/version',
  handle() {
    throw notFound('No current backup version')
  },
})
