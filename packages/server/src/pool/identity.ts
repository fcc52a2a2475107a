/**
 * Rule 1 of an upload, "Identity" (2-key-pool): whose keys these are comes before what they are.
 * A changed identity is a lost store under an old device ID: its pools are dead and are purged in the same transaction.
 * From then on only the current identity may add keys, or a late request of the former one would poison the pool.
 */
import {
  isJsonObject,
  type KeyMaterial,
  materialOf,
  signatureBy,
  signedText,
  type DeviceId,
  type JsonObject,
  type UserId,
} from '@latchkey/protocol'
import { verifyEd25519 } from '../lib/ed25519.ts'
import { invalidParam, invalidSignature, quoted } from '../matrix-error.ts'
import type { UploadedKey } from './port.ts'

/** A device's identity keys, in normal form; either may be missing (old clients, tests of peers). */
export type Identity = { readonly ed25519?: KeyMaterial; readonly curve25519?: KeyMaterial }

/** Reads the identity out of a `device_keys` object. */
export function identityOf(deviceKeys: JsonObject, deviceId: DeviceId): Identity {
  const keys = deviceKeys['keys']
  const read = (algorithm: string): KeyMaterial | undefined => {
    const name = `${algorithm}:${deviceId}`
    const key = isJsonObject(keys) && Object.hasOwn(keys, name) ? keys[name] : undefined
    return typeof key === 'string' ? materialOf(key) : undefined
  }
  const ed25519 = read('ed25519')
  const curve25519 = read('curve25519')
  return { ...(ed25519 && { ed25519 }), ...(curve25519 && { curve25519 }) }
}

/**
 * Compares an uploaded identity with the stored one. Absent -> present is no change.
 *
 * @throws {MatrixError} 400 for a former identity, and for one that drops a key it had.
 */
export function compareIdentity(
  stored: Identity | undefined,
  former: readonly Identity[],
  uploaded: Identity,
): 'same' | 'changed' {
  for (const part of ['ed25519', 'curve25519'] as const) {
    if (stored?.[part] !== undefined && uploaded[part] === undefined) {
      throw invalidParam(`device_keys.keys has no ${part} key, which this device has published before.`)
    }
  }
  const differs = (other: Identity): boolean =>
    (other.ed25519 !== undefined && other.ed25519 !== uploaded.ed25519) ||
    (other.curve25519 !== undefined && other.curve25519 !== uploaded.curve25519)
  if (stored === undefined || !differs(stored)) return 'same'
  if (former.some((identity) => !differs(identity))) {
    throw invalidParam(
      'device_keys carry an identity that this device has given up: an old copy of its store is still running. Log in anew.',
    )
  }
  return 'changed'
}

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
