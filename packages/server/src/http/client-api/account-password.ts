/** POST /account/password: sets a new password after authentication; removes the other devices by default. */
import { Type } from 'typebox'
import { requireGoodPassword } from '../../accounts/password-policy.ts'
import { endpoint } from '../endpoint.ts'

export const accountPassword = endpoint({
  method: 'POST',
  path: '/account/password',
  body: Type.Object({
    auth: Type.Optional(Type.Unknown()),
    new_password: Type.String(),
    logout_devices: Type.Optional(Type.Boolean()),
  }),
  async handle({ context, session, body, origin }) {
    requireGoodPassword(body.new_password, context.config.passwordMinLength)
    await context.interactiveAuth.require({
      auth: body.auth,
      flows: [['m.login.password']],
      operation: `POST /account/password ${session.userId}`,
      session,
    })
    const endOthers = body.logout_devices ?? true
    await context.store.accounts.setPassword({
      session,
      passwordHash: await context.passwords.hash(body.new_password),
      endOthers,
      now: context.now(),
    })
    context.securityLog.note('password_changed', origin, { devicesRemoved: endOthers })
    return {}
  },
})
