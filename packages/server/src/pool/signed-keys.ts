/**
 * When keys have to be signed (key-pool.md "Identity", `verify_signatures`): by default peers accept unsigned keys, and
 * so does Latchkey; a device that has changed its identity has to show which one a key belongs to.
 */
import {
  CanonicalJsonError,
  isJsonObject,
  signatureBy,
  signedText,
  type DeviceId,
  type UserId,
} from '@latchkey/protocol'
import { verifyEd25519 } from '../lib/ed25519.ts'
import { invalidSignature, quoted } from '../matrix-error.ts'
import type { Identity } from './identity.ts'
import type { UploadedDeviceKeys, UploadedKey } from './port.ts'

type Owner = { readonly userId: UserId; readonly deviceId: DeviceId }

/**
 * Demands that every key is signed by the device's current identity.
 *
 * @throws {MatrixError} 400 M_INVALID_SIGNATURE naming the first key that is not.
 */
export function requireSignedKeys(keys: readonly UploadedKey[], identity: Identity, owner: Owner): void {
  for (const key of keys) {
    if (!isSigned(key.json, identity, owner)) {
      const name = quoted(`${key.algorithm}:${key.keyId}`)
      throw invalidSignature(`Key ${name} is not signed by this device's current ed25519 key.`)
    }
  }
}

/** @throws {MatrixError} 400 M_INVALID_SIGNATURE when device keys are not signed by the ed25519 key they carry. */
export function requireSignedDeviceKeys({ json, identity }: UploadedDeviceKeys, owner: Owner): void {
  if (!isSigned(json, identity, owner)) {
    throw invalidSignature('device_keys are not signed by the ed25519 key that they carry.')
  }
}

function isSigned(json: string, { ed25519 }: Identity, { userId, deviceId }: Owner): boolean {
  const value: unknown = JSON.parse(json)
  const signature = isJsonObject(value) ? signatureBy(value, userId, `ed25519:${deviceId}`) : undefined
  if (ed25519 === undefined || signature === undefined || !isJsonObject(value)) return false
  try {
    return verifyEd25519(ed25519, signature, signedText(value))
  } catch (error) {
    if (error instanceof CanonicalJsonError) return false // what has no canonical form cannot have been signed
    throw error
  }
}
