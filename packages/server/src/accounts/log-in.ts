/** A login whose user is known by now: a device, new or taken up again, and a token for it. */
import { MAX_DEVICE_ID_BYTES, type DeviceId, parseDeviceId } from '@latchkey/protocol'
import { invalidParam } from '../matrix-error.ts'
import type { Session } from '../session.ts'
import { hashToken, newAccessToken, newDeviceId } from './access-token.ts'
import { requireDisplayName } from './display-name.ts'
import type { Account, AccountStore } from './port.ts'

/** What to-device messages are addressed to for all of a user's devices (client-server API, "Send-to-device messaging"). */
const EVERY_DEVICE = '*'

/** What a client says about the device that logs in. */
export type LoginDevice = { readonly deviceId: DeviceId; readonly displayName?: string }

/**
 * The device of a login request, under a new ID if it names none.
 *
 * @throws {MatrixError} 400 for an empty, overlong or reserved ID or an overlong name.
 */
export function loginDevice(
  deviceId: string | null | undefined,
  displayName: string | null | undefined,
): LoginDevice {
  const parsed = deviceId === null || deviceId === undefined ? newDeviceId() : parseDeviceId(deviceId)
  if (parsed === undefined) throw invalidParam(`device_id: expected 1 to ${MAX_DEVICE_ID_BYTES} bytes.`)
  if (parsed === EVERY_DEVICE) {
    throw invalidParam(`device_id: "${EVERY_DEVICE}" means every device of a user; expected an ID of one.`)
  }
  return {
    deviceId: parsed,
    ...(typeof displayName === 'string' && { displayName: requireDisplayName(displayName) }),
  }
}

/** @throws {MatrixError} 400 when the account has as many devices as it may, 403 when its password changed meanwhile. */
export async function logIn(
  { accounts, now }: { readonly accounts: AccountStore; readonly now: () => number },
  account: Account,
  device: LoginDevice,
  ip: string,
): Promise<{ session: Session; accessToken: string }> {
  const accessToken = newAccessToken()
  const session = await accounts.openSession({
    account,
    ...device,
    tokenHash: hashToken(accessToken),
    ip,
    now: now(),
  })
  return { session, accessToken }
}
