/**
 * POST /register: creates accounts after user-interactive authentication (client-server API, "Account registration").
 * An invalid name or password is refused before the challenge, so that users do not authenticate in vain.
 */
import { Type } from 'typebox'
import type { Stage } from '../../accounts/interactive-auth.ts'
import { loginDevice, newLogin } from '../../accounts/log-in.ts'
import { requireGoodPassword } from '../../accounts/password-policy.ts'
import { registerAccount, requireFreeName } from '../../accounts/register-account.ts'
import { randomLocalpart } from '../../accounts/user-name.ts'
import type { Registration } from '../../config/config.ts'
import type { Context } from '../../context.ts'
import {
  forbidden,
  invalidParam,
  limitExceeded,
  MatrixError,
  missingParam,
  quoted,
} from '../../matrix-error.ts'
import { publicEndpoint } from '../endpoint.ts'
import { encodeLogin } from './encode-login.ts'
import { OptionalBoolean, OptionalString } from './optional-string.ts'

export const register = publicEndpoint({
  method: 'POST',
  path: '/register',
  interactive: true,
  admit: ({ context, ip }) => limitRegistration(context, ip),
  body: Type.Object({
    auth: Type.Optional(Type.Unknown()),
    username: OptionalString,
    password: OptionalString,
    device_id: OptionalString,
    initial_device_display_name: OptionalString,
    refresh_token: OptionalBoolean,
    inhibit_login: Type.Optional(Type.Boolean()),
  }),
  async handle({ context, body, query, ip, confirm, origin }) {
    requireUserKind(query['kind'])
    requireRegistration(context)
    const isAttempt = body.auth !== undefined && body.auth !== null
    if (isAttempt) limitAttempt(context, ip)
    const { store, passwords, serverName, now, config } = context
    const { passwordMinLength } = config
    const deps = { accounts: store.accounts, passwords, serverName, now, passwordMinLength }
    const localpart = body.username ?? randomLocalpart()
    const password = body.password ?? undefined
    const userId = await requireFreeName(deps, localpart)
    if (password !== undefined) requireGoodPassword(password, passwordMinLength)
    const device = loginDevice(body.device_id, body.initial_device_display_name, body.refresh_token === true)
    if (isAttempt && password === undefined) throw missingParam('"the body" lacks the member "password".')
    const proof = await confirm(stagesOf(config.registration))
    if (password === undefined) throw missingParam('"the body" lacks the member "password".')
    const { login, tokens } = newLogin(device, ip, context)
    const answer =
      body.inhibit_login === true
        ? { user_id: userId, home_server: serverName }
        : encodeLogin(context, { userId, deviceId: device.deviceId, tokens })
    const { registrationTokenHash } = proof
    await registerAccount(deps, {
      localpart,
      password,
      ...(registrationTokenHash !== undefined && { registrationTokenHash }),
      ...(body.inhibit_login !== true && { login }),
      ...proof.finishing(answer),
    })
    context.securityLog.note('account_registered', origin, { userId })
    return answer
  },
})

/** @throws {MatrixError} 403 if registration is closed. */
export function requireRegistration({ config }: Context): void {
  if (config.registration === 'closed') {
    throw forbidden('Registration is closed on this server; ask its operator for an account.')
  }
}

/**
 * Limits requests for the flows, for a free name and for an account, before their body is read.
 *
 * @throws {MatrixError} 429
 */
export function limitRegistration({ limiters, now }: Context, ip: string): void {
  refuseOver(limiters.registerRequestPerAddress?.take(ip, now()))
}

/** @throws {MatrixError} 429 */
function limitAttempt({ limiters, now }: Context, ip: string): void {
  refuseOver(limiters.registrationPerAddress?.take(ip, now()))
}

function refuseOver(waitMs = 0): void {
  if (waitMs > 0) throw limitExceeded('Too many registrations from this address.', waitMs)
}

function requireUserKind(kind: string | undefined): void {
  if (kind === 'guest') {
    throw new MatrixError(403, 'M_GUEST_ACCESS_FORBIDDEN', 'This server has no guest accounts.')
  }
  if (kind !== undefined && kind !== 'user') {
    throw invalidParam(`kind is ${quoted(kind)}; expected "user".`)
  }
}

function stagesOf(registration: Registration): readonly Stage[] {
  return [registration === 'open' ? 'm.login.dummy' : 'm.login.registration_token']
}
