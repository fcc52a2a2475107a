/**
 * When keys have to be signed (key-pool.md "Identity", `verify_signatures`): by default peers accept unsigned keys, and
 * so does Latchkey; a device that has changed its identity has to show which one a key belongs to.
 */
import { isJsonObject, signatureBy, signedText, type DeviceId, type UserId } from '@latchkey/protocol'
import { verifyEd25519 } from '../lib/ed25519.ts'
import { invalidSignature, quoted } from '../matrix-error.ts'
import type { Identity } from './identity.ts'
import type { UploadedKey } from './port.ts'

/**
 * Demands that every key is signed by the device's current identity.
 *
 * @throws {MatrixError} 400 M_INVALID_SIGNATURE naming the first key that is not.
 */
export function requireSignedKeys(
  keys: readonly UploadedKey[],
  identity: Identity | undefined,
  owner: { readonly userId: UserId; readonly deviceId: DeviceId },
): void {
  for (const key of keys) {
    const value: unknown = JSON.parse(key.json)
    const signature = isJsonObject(value)
      ? signatureBy(value, owner.userId, `ed25519:${owner.deviceId}`)
      : undefined
    const verifies =
      identity?.ed25519 !== undefined &&
      signature !== undefined &&
      isJsonObject(value) &&
      verifyEd25519(identity.ed25519, signature, signedText(value))
    if (!verifies) {
      throw invalidSignature(
        `Key ${quoted(`${key.algorithm}:${key.keyId}`)} is not signed by this device's current ed25519 key.`,
      )
    }
  }
}
