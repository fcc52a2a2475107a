/**
 * POST and GET /user/:userId/filter (client-server API, "Filtering"). Filters select rooms and events, and there are
 * none; they are stored because clients create one before their first sync.
 */
import { utf8Length } from '@latchkey/protocol'
import { Type } from 'typebox'
import { notFound, quoted, tooLarge } from '../../matrix-error.ts'
import { documentBody, endpoint, JsonText } from '../endpoint.ts'
import { requireOwnUser } from './own-user.ts'

export const postFilter = endpoint({
  method: 'POST',
  path: '/user/:userId/filter',
  bodyBytes: ({ filterBytes }) => documentBody(filterBytes),
  body: Type.Object({}),
  async handle({ context, session, params, body }) {
    requireOwnUser(session, params['userId'])
    const json = JSON.stringify(body)
    const { filterBytes } = context.config.sizes
    if (utf8Length(json) > filterBytes) throw tooLarge(`The filter is larger than ${filterBytes} bytes.`)
    return { filter_id: await context.store.sync.putFilter(session, json) }
  },
})

export const getFilter = endpoint({
  method: 'GET',
  path: '/user/:userId/filter/:filterId',
  async handle({ context, session, params }) {
    requireOwnUser(session, params['userId'])
    const filterId = params['filterId'] ?? ''
    const json = await context.store.sync.filter(session.userRef, filterId)
    if (json === undefined) throw notFound(`This user has no filter with the ID ${quoted(filterId)}.`)
    return new JsonText(json)
  },
})
