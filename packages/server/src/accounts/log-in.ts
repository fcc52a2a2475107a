/** A login of an authenticated user: a device, new or used before, and a token for it (open-session.ts). */
import { MAX_DEVICE_ID_BYTES, type DeviceId, parseDeviceId } from '@latchkey/protocol'
import { invalidParam } from '../matrix-error.ts'
import { newDeviceId } from './access-token.ts'
import { requireDisplayName } from './display-name.ts'
import type { HashNetwork } from './known-networks.ts'
import type { Account, AccountStore, NewLogin } from './port.ts'
import { newTokens, type SessionTokens, type TokenRules } from './refresh-tokens.ts'

/** The address of all devices of a user (client-server API, "Send-to-device messaging"). */
const EVERY_DEVICE = '*'

/** The device that logs in, as its client describes it. */
export type LoginDevice = {
  readonly deviceId: DeviceId
  readonly displayName?: string
  /** Asks for a refresh token. */
  readonly refreshable: boolean
}

/**
 * The device of a login request, with a new ID if the request has none.
 *
 * @throws {MatrixError} 400 for an empty, overlong or reserved ID or an overlong name.
 */
export function loginDevice(
  deviceId: string | null | undefined,
  displayName: string | null | undefined,
  refreshable = false,
): LoginDevice {
  const parsed = deviceId === null || deviceId === undefined ? newDeviceId() : parseDeviceId(deviceId)
  if (parsed === undefined) throw invalidParam(`device_id: expected 1 to ${MAX_DEVICE_ID_BYTES} bytes.`)
  if (parsed === EVERY_DEVICE) {
    throw invalidParam(`device_id: "${EVERY_DEVICE}" means every device of a user; expected an ID of one.`)
  }
  return {
    deviceId: parsed,
    refreshable,
    ...(typeof displayName === 'string' && { displayName: requireDisplayName(displayName) }),
  }
}

export type LoginDeps = TokenRules & { readonly hashNetwork: HashNetwork }

/** A login of a device, and the tokens that only the client gets. */
export function newLogin(
  { refreshable, ...device }: LoginDevice,
  ip: string,
  deps: LoginDeps,
): { readonly login: NewLogin; readonly tokens: SessionTokens } {
  const { tokens, stored } = newTokens(deps, refreshable)
  const login = { ...device, ...stored, ip, networkHash: deps.hashNetwork(ip), now: deps.now() }
  return { login, tokens }
}

/**
 * @throws {MatrixError} 400 when the account has as many devices as it may, 403 when its password has changed since.
 */
export async function logIn(
  deps: LoginDeps & { readonly accounts: AccountStore },
  account: Account,
  device: LoginDevice,
  ip: string,
): Promise<SessionTokens> {
  const { login, tokens } = newLogin(device, ip, deps)
  await deps.accounts.openSession({ account, ...login })
  return tokens
}
