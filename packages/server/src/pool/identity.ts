/**
 * Rule 1 of an upload, "Identity" (key-pool.md): whose keys these are comes before what they are.
 * A changed identity is a lost store under an old device ID: its pools are dead and are purged in the same transaction.
 * From then on only the current identity may add keys, or a late request of the former one would poison the pool.
 */
import {
  isJsonObject,
  type KeyMaterial,
  materialOf,
  type DeviceId,
  type JsonObject,
} from '@latchkey/protocol'
import { invalidParam } from '../matrix-error.ts'

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
