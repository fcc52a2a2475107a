/** GET /keys/changes (client-server API, "Key management"). Without rooms nobody is ever `left`; `to` is not needed. */
import { missingParam } from '../../matrix-error.ts'
import { continuesFrom, decodeToken } from '../../sync/token.ts'
import { endpoint } from '../endpoint.ts'

/** Below every position: everyone the user asked about. */
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
    const end = await sync.end()
    const since = continuesFrom(decodeToken(sync.tokenSecret, session, from), end) ?? BEGINNING
    return { changed: await devices.changedSince(session.userRef, since, end.position), left: [] }
  },
})
