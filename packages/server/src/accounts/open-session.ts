/**
 * A login on a device, new or used before: which device the session gets, and what of it stays. The device ID decides:
 *
 *     unknown          create   a new device
 *     existing         renew    it keeps its name, its keys and its messages; its earlier tokens end
 *     removed before   restore  a new device to everyone, on the row that remembers its issued keys (devices/remove.ts)
 */
import type { DeviceId } from '@latchkey/protocol'
import { type DeviceLimits, enforceDeviceLimit } from '../devices/device-limit.ts'
import { requireFreeDeviceId } from '../devices/name-space.ts'
import { forbidden } from '../matrix-error.ts'
import type { DeviceRef } from '../session.ts'
import { userLocked } from './locked-users.ts'
import type { NewSession } from './port.ts'

/** `Ref`: a store may require that the device is locked. */
export type LoginFacts<Ref extends DeviceRef = DeviceRef> = {
  /** The account's password hash now. */
  readonly passwordHash: string
  readonly isLocked: boolean
  /** The user's device of this ID; undefined when there has been none. */
  readonly device: { readonly deviceRef: Ref; readonly isRemoved: boolean } | undefined
  /** The device ID is one of the user's cross-signing public keys. */
  readonly namesKey: boolean
  /** The user's devices, without removed ones. */
  readonly deviceCount: number
}

export type LoginDecision<Ref extends DeviceRef = DeviceRef> = (
  | { readonly kind: 'create' }
  | { readonly kind: 'renew' | 'restore'; readonly deviceRef: Ref }
) & {
  /** The earlier tokens of the device end: only this login's token is valid. */
  readonly endsTokens: boolean
  /** The user's device list has another device than before. */
  readonly changesList: boolean
}

/**
 * A device that is created or restored has no key from before the fence, so it begins at the present fence.
 *
 * @throws {MatrixError} 403 when the user is locked or the password has changed since it was checked, 400 when the ID
 *   is a key's or the user has as many devices as allowed.
 */
export function decideLogin<Ref extends DeviceRef>(
  { passwordHash, isLocked, device, namesKey, deviceCount }: LoginFacts<Ref>,
  { account, deviceId }: { readonly account: NewSession['account']; readonly deviceId: DeviceId },
  limits: DeviceLimits,
): LoginDecision<Ref> {
  if (passwordHash !== account.passwordHash) throw forbidden('The password was changed during this login.')
  if (isLocked) throw userLocked(403)
  if (device !== undefined && !device.isRemoved) {
    return { kind: 'renew', deviceRef: device.deviceRef, endsTokens: true, changesList: false }
  }
  requireFreeDeviceId(deviceId, namesKey)
  enforceDeviceLimit(deviceCount, limits)
  const effects = { endsTokens: false, changesList: true }
  return device === undefined
    ? { kind: 'create', ...effects }
    : { kind: 'restore', deviceRef: device.deviceRef, ...effects }
}
