/**
 * Device IDs and cross-signing public keys of a user share one name space, because signatures name the key they are on
 * by either (client-server API, "Cross-signing"). A name is free again when its device is removed or its key is
 * replaced.
 */
import type { DeviceId } from '@latchkey/protocol'
import { forbidden, invalidParam, quoted } from '../matrix-error.ts'
import type { CrossSigningKey } from './port.ts'

/**
 * @param namesKey whether the ID is one of the user's cross-signing public keys
 * @throws {MatrixError} 400 M_INVALID_PARAM
 */
export function requireFreeDeviceId(deviceId: DeviceId, namesKey: boolean): void {
  if (!namesKey) return
  throw invalidParam(
    `device_id ${quoted(deviceId)} is one of this user's cross-signing public keys; expected an ID of its own.`,
  )
}

/**
 * Checks keys in their order.
 *
 * @param deviceIds the user's devices, or those of them that a key may name
 * @throws {MatrixError} 403 M_FORBIDDEN
 */
export function requireFreePublicKeys(
  keys: readonly CrossSigningKey[],
  deviceIds: ReadonlySet<string>,
): void {
  const taken = keys.find((key) => deviceIds.has(key.publicKey))
  if (taken === undefined) return
  throw forbidden(
    `The public key ${quoted(taken.publicKey)} is the ID of one of the user's devices; expected a key of its own.`,
  )
}
