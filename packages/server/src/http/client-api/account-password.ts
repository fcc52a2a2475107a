/** POST /account/password: sets a new password after authentication; removes the other devices by default. */
import { Type } from 'typebox'
import { requireGoodPassword } from '../../accounts/password-policy.ts'
import { endpoint } from '../endpoint.ts'

export const accountPassword = endpoint({
  method: 'POST',
  path: '/account/password',
  interactive: true,
  body: Type.Object({
    auth: Type.Optional(Type.Unknown()),
    new_password: Type.String(),
    logout_devices: Type.Optional(Type.Boolean()),
  }),
  async handle({ context, session, body, confirm, origin }) {
    requireGoodPassword(body.new_password, context.config.passwordMinLength)
    const proof = await confirm(['m.login.password'])
    const endOthers = body.logout_devices ?? true
    await context.store.accounts.setPassword({
      session,
      passwordHash: await context.passwords.hash(body.new_password, true),
      endOthers,
      ...proof.finishing({}),
      now: context.now(),
    })
    context.securityLog.note('password_changed', origin, { devicesRemoved: endOthers })
    return {}
  },
})
