/**
 * PUT and GET /user/:userId/account_data/:type (client-server API, "Client config"), global account data only, because
 * there are no rooms. Clients keep their secret storage here; a change appears in the sync of each of the user's
 * devices.
 */
import { utf8Length } from '@latchkey/protocol'
import { Type } from 'typebox'
import { invalidParam, MatrixError, notFound, quoted, tooLarge } from '../../matrix-error.ts'
import { isWellFormedText } from '../decode-json.ts'
import { documentBody, endpoint, JsonText } from '../endpoint.ts'
import { requireOwnUser } from './own-user.ts'

const MAX_TYPE_BYTES = 255
/** Types with endpoints of their own. */
const RESERVED_TYPES: ReadonlySet<string> = new Set(['m.fully_read', 'm.push_rules'])

export const putAccountData = endpoint({
  method: 'PUT',
  path: '/user/:userId/account_data/:type',
  sessionProvedByStore: true,
  bodyBytes: ({ accountDataBytes }) => documentBody(accountDataBytes),
  body: Type.Object({}),
  async handle({ context, session, params, body }) {
    requireOwnUser(session, params['userId'])
    const type = decodeType(params['type'])
    if (RESERVED_TYPES.has(type)) {
      throw new MatrixError(
        405,
        'M_BAD_JSON',
        `Account data of type ${type} cannot be set through this endpoint.`,
      )
    }
    const content = JSON.stringify(body)
    const { accountDataBytes } = context.config.sizes
    if (utf8Length(content) > accountDataBytes) {
      throw tooLarge(`The account data is larger than ${accountDataBytes} bytes.`)
    }
    await context.store.sync.putAccountData(session, type, content)
    return {}
  },
})

export const getAccountData = endpoint({
  method: 'GET',
  path: '/user/:userId/account_data/:type',
  async handle({ context, session, params }) {
    requireOwnUser(session, params['userId'])
    const type = decodeType(params['type'])
    const content = await context.store.sync.accountData(session.userRef, type)
    if (content === undefined) throw notFound(`This user has no account data of type ${quoted(type)}.`)
    return new JsonText(content)
  },
})

function decodeType(type = ''): string {
  if (type === '' || utf8Length(type) > MAX_TYPE_BYTES || !isWellFormedText(type)) {
    throw invalidParam(
      `Account data type: expected 1 to ${MAX_TYPE_BYTES} bytes without U+0000, got ${quoted(type)}.`,
    )
  }
  return type
}
