/**
 * Rule 1 of an upload, "Identity" (key-pool.md): it is checked before the keys.
 * A changed identity means a lost store under an old device ID: its keys cannot be used any more and are purged in the
 * same transaction. From then on only the current identity may add keys, or a late request of the former one would add
 * keys whose private halves are lost.
 */
import {
  isJsonObject,
  type KeyMaterial,
  materialOf,
  type DeviceId,
  type JsonObject,
} from '@latchkey/protocol'
import { invalidParam } from '../matrix-error.ts'

/**
 * A device's identity keys, in normal form; either may be missing (clients that upload no device keys, test clients).
 */
export type Identity = { readonly ed25519?: KeyMaterial; readonly curve25519?: KeyMaterial }

export type IdentityPart = keyof Identity

const PARTS = ['ed25519', 'curve25519'] as const

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
 * Compares an uploaded identity with the stored one. Absent -> present is not a change.
 *
 * @param givenUp the parts of the uploaded identity that the device gave up before
 * @throws {MatrixError} 400 for an identity with a part that was given up, and for one that drops a part it had.
 */
export function compareIdentity(
  stored: Identity,
  uploaded: Identity,
  givenUp: ReadonlySet<IdentityPart>,
): 'same' | 'changed' {
  let changed = false
  for (const part of PARTS) {
    const [before, now] = [stored[part], uploaded[part]]
    if (before !== undefined && now === undefined) {
      throw invalidParam(`device_keys.keys has no ${part} key, which this device has published before.`)
    }
    if (before === now || now === undefined) continue
    if (givenUp.has(part)) {
      throw invalidParam(
        `device_keys carry an ${part} key that this device has replaced; a client with an old copy of its store is still running. Log in again as a new device.`,
      )
    }
    if (before !== undefined) changed = true
  }
  return changed ? 'changed' : 'same'
}

/** The parts of the stored identity that the uploaded one replaces: the device gives them up. */
export function givenUpBy(stored: Identity, uploaded: Identity): Identity {
  const parts = PARTS.filter((part) => stored[part] !== undefined && stored[part] !== uploaded[part])
  return Object.fromEntries(parts.map((part) => [part, stored[part]])) as Identity
}
