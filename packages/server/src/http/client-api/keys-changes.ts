/** GET /keys/changes (client-server API, "Key management"). Without rooms `left` is always empty; `to` is ignored. */
import { missingParam } from '../../matrix-error.ts'
import { continueFrom, decodeToken } from '../../sync/token.ts'
import { endpoint } from '../endpoint.ts'

/** Before every position: matches all tracked users. */
const BEGINNING = -1

export const keysChanges = endpoint({
  method: 'GET',
  path: '/keys/changes',
  async handle({ context, session, query }) {
    const from = query['from']
    if (from === undefined || from === '') {
      throw missingParam('from: expected the next_batch of an earlier sync.')
    }
    const { devices, sync } = context.store
    const token = decodeToken(sync.tokenSecret, session, from)
    const end = await sync.end(token)
    const { since = BEGINNING, everyone } = continueFrom(token, end)
    const after = everyone ? BEGINNING : since
    return {
      changed: await devices.changedSince(session.userRef, after, end.position),
      left: [],
    }
  },
})
