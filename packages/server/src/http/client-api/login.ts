/** GET and POST /login: password logins (client-server API, "Login"). */
import { Type } from 'typebox'
import { loginDevice } from '../../accounts/log-in.ts'
import { logInWithPassword } from '../../accounts/password-login.ts'
import { meantUserId, requireUserIdentifier } from '../../accounts/user-name.ts'
import { forbidden, invalidParam, MatrixError, missingParam, quoted } from '../../matrix-error.ts'
import { publicEndpoint } from '../endpoint.ts'
import { encodeLogin } from './encode-login.ts'
import { OptionalBoolean, OptionalString } from './optional-string.ts'

const PASSWORD = 'm.login.password'

export const loginFlows = publicEndpoint({
  method: 'GET',
  path: '/login',
  handle: () => ({ flows: [{ type: PASSWORD }] }),
})

export const login = publicEndpoint({
  method: 'POST',
  path: '/login',
  presentsToken: true,
  admit: async ({ context, ip, presented }) =>
    context.loginLimits?.admit({ address: ip, presented, now: context.now() }),
  body: Type.Object({
    type: Type.String(),
    identifier: Type.Optional(
      Type.Union([Type.Object({ type: Type.String(), user: Type.Optional(Type.String()) }), Type.Null()]),
    ),
    user: Type.Optional(Type.String()),
    password: Type.Optional(Type.String()),
    device_id: OptionalString,
    initial_device_display_name: OptionalString,
    refresh_token: OptionalBoolean,
  }),
  async handle({ context, body, ip, presented, origin }) {
    const { store, serverName, now, securityLog } = context
    if (body.type !== PASSWORD) {
      throw invalidParam(`The login type ${quoted(body.type)} is not supported; expected "${PASSWORD}".`)
    }
    const user = userOf(body)
    const { password } = body
    if (password === undefined) throw missingParam('"the body" lacks the member "password".')
    const device = loginDevice(body.device_id, body.initial_device_display_name, body.refresh_token === true)
    const { accounts } = store
    const userId = meantUserId(user, serverName)
    const isKnown = await context.loginLimits?.count({ userId, address: ip, presented, now: now() })
    const deps = { ...context, accounts }
    const opened = await logInWithPassword(deps, { userId, password, isKnown, device, ip })
    if (opened === undefined) {
      const known = userId && (await accounts.find(userId))
      securityLog.note('login_failed', origin, { ...(known && { userId: known.userId }) })
      if (known?.isDeactivated) throw deactivated()
      throw forbidden('Invalid user name or password.')
    }
    const { deviceId } = device
    const { account, tokens } = opened
    securityLog.note('login', origin, { userId: account.userId, deviceId })
    return encodeLogin(context, { userId: account.userId, deviceId, tokens })
  },
})

function deactivated(): MatrixError {
  return new MatrixError(403, 'M_USER_DEACTIVATED', 'This account was deactivated; it cannot be used again.')
}

/** `identifier`, or the member `user` that it replaced (deprecated since r0.4). */
function userOf(body: {
  readonly identifier?: { readonly type: string; readonly user?: string } | null
  readonly user?: string
}): string {
  // Null is treated as absent, as on other homeservers.
  const identifier = body.identifier ?? undefined
  if (identifier !== undefined) requireUserIdentifier(identifier.type)
  const user = identifier?.user ?? body.user
  if (user === undefined) {
    throw missingParam('Expected "identifier" with the type "m.id.user" and a "user".')
  }
  return user
}
