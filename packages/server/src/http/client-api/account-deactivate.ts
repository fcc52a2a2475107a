/**
 * POST /account/deactivate: ends the account for good (accounts/deactivate.ts). `erase` is accepted: nothing of the
 * account is shown afterwards in any case.
 */
import { Type } from 'typebox'
import { endpoint } from '../endpoint.ts'
import { OptionalString } from './optional-string.ts'

export const accountDeactivate = endpoint({
  method: 'POST',
  path: '/account/deactivate',
  interactive: true,
  body: Type.Object({
    auth: Type.Optional(Type.Unknown()),
    erase: Type.Optional(Type.Union([Type.Boolean(), Type.Null()])),
    id_server: OptionalString,
  }),
  async handle({ context, session, confirm, origin }) {
    // "success" is the value for a server that knows no identifiers of other kinds.
    const answer = { id_server_unbind_result: 'success' }
    const proof = await confirm(['m.login.password'])
    await context.store.accounts.deactivate({
      userRef: session.userRef,
      session,
      ...proof.finishing(answer),
      now: context.now(),
    })
    context.securityLog.note('account_deactivated', origin, {})
    return answer
  },
})
