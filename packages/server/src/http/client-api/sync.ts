/** GET /sync (client-server API, "Syncing"), limited to what a server without rooms supports. Rules: sync/sync.ts. */
import { KEY_POOL } from '@latchkey/protocol'
import type { Context } from '../../context.ts'
import { invalidParam, notJson } from '../../matrix-error.ts'
import { countsOf, keyPoolOf, unusedFallbackTypes } from '../../pool/pool-answer.ts'
import type { Session } from '../../session.ts'
import { sync as runSync, type SyncAnswer } from '../../sync/sync.ts'
import { endpoint, JsonText } from '../endpoint.ts'

export const sync = endpoint({
  method: 'GET',
  path: '/sync',
  answerBytes: ({ syncPageBytes }) => 2 * syncPageBytes,
  async handle(call) {
    const { context, session, query } = call
    await requireKnownFilter(context, session, query['filter'])
    if (query['from'] !== undefined) throw invalidParam('Unknown parameter "from"; expected "since".')
    const { store, config, waiters } = context
    const since = query['since']
    const answer = await runSync(store.sync, waiters, {
      session,
      ...(since !== undefined && { since }),
      timeoutMs: Math.min(decodeTimeout(query['timeout']), config.sizes.syncTimeoutMs),
      page: config.sizes,
      clientGone: () => call.signal,
    })
    return encode(answer)
  },
})

function decodeTimeout(text: string | undefined): number {
  if (text === undefined) return 0
  const timeoutMs = Number(text)
  if (!Number.isFinite(timeoutMs) || timeoutMs < 0)
    throw invalidParam('timeout: expected milliseconds, 0 or more.')
  return timeoutMs
}

/** Filters select rooms and events, and there are none; an invalid filter is still refused. */
async function requireKnownFilter(
  { store }: Context,
  session: Session,
  filter: string | undefined,
): Promise<void> {
  if (filter === undefined) return
  if (filter.startsWith('{')) {
    try {
      JSON.parse(filter)
    } catch {
      throw notJson('filter: expected a filter ID, or a filter as JSON.')
    }
  } else if ((await store.sync.filter(session.userRef, filter)) === undefined) {
    throw invalidParam('filter: no filter with this ID; create one with POST /user/{userId}/filter.')
  }
}

/** Assembled as text: to-device events and account data are stored as JSON text. */
function encode(answer: SyncAnswer): JsonText {
  const members = [
    `"next_batch":${JSON.stringify(answer.nextBatch)}`,
    `"device_one_time_keys_count":${JSON.stringify(countsOf(answer.pools))}`,
    `"device_unused_fallback_key_types":${JSON.stringify(unusedFallbackTypes(answer.pools))}`,
    `"${KEY_POOL}":${JSON.stringify(keyPoolOf(answer.pools))}`,
    `"to_device":{"events":[${answer.toDevice.join(',')}]}`,
  ]
  if (answer.incremental && answer.changedUsers.length > 0) {
    members.push(`"device_lists":${JSON.stringify({ changed: answer.changedUsers, left: [] })}`)
  }
  const data = answer.accountData.map(
    ({ type, content }) => `{"type":${JSON.stringify(type)},"content":${content}}`,
  )
  if (data.length > 0 || !answer.incremental) members.push(`"account_data":{"events":[${data.join(',')}]}`)
  return new JsonText(`{${members.join(',')}}`)
}
