/**
 * One user's part of the answer to `/keys/query`: stored signatures join those in the uploaded objects. Visibility
 * (client-server API, "Cross-signing", "Key and signature security"): everyone sees the signatures of users on their
 * own keys. A signature on another user's master key is visible to its signer alone, and a user-signing key to its user
 * alone. On a cross-signing key no signature by a device that does not exist any more is visible; device keys have the
 * signatures that their device uploaded, and stored ones.
 */
import { isJsonObject, type JsonObject, type UserId } from '@latchkey/protocol'
import type { CrossSigningUsage, KeySignature, PublishedDevice, PublishedKeys } from './port.ts'

export type VisibleKeys = {
  /** Device ID -> device keys. */
  readonly devices: Readonly<Record<string, JsonObject>>
  readonly crossSigning: ReadonlyMap<CrossSigningUsage, JsonObject>
}

/** @param wanted device IDs; none means all. Devices without keys are not published, unknown ones are left out. */
export function visibleKeys(
  published: PublishedKeys,
  owner: UserId,
  wanted: readonly string[],
  viewer: UserId,
): VisibleKeys {
  const added = Map.groupBy(
    published.signatures.filter(({ signer }) => signer === owner || signer === viewer),
    ({ keyId }) => keyId,
  )
  const only = wanted.length === 0 ? undefined : new Set(wanted)
  const devices = published.devices
    .filter((device) => only?.has(device.deviceId) ?? true)
    .map((device) => [device.deviceId, deviceKeys(device, added.get(device.deviceId))] as const)
  const signers = new Set([
    ...published.devices.map(({ deviceId }) => `ed25519:${deviceId}`),
    ...published.crossSigning.map(({ publicKey }) => `ed25519:${publicKey}`),
  ])
  const crossSigning = published.crossSigning
    .filter((key) => key.usage !== 'user_signing' || owner === viewer)
    .map((key) => {
      const object = signedBy(parse(key.json), owner, signers)
      return [key.usage, withSignatures(object, added.get(key.publicKey))] as const
    })
  return { devices: Object.fromEntries(devices), crossSigning: new Map(crossSigning) }
}

/**
 * A cross-signing key with those signatures in its text that are by existing keys of its owner: earlier versions stored
 * all that were uploaded with it.
 */
function signedBy(object: JsonObject, owner: UserId, signers: ReadonlySet<string>): JsonObject {
  if (object['signatures'] === undefined) return object
  const own = Object.entries(asObject(asObject(object['signatures'])[owner]))
  const kept = Object.fromEntries(own.filter(([name]) => signers.has(name)))
  return { ...object, signatures: Object.keys(kept).length === 0 ? {} : { [owner]: kept } }
}

function deviceKeys(device: PublishedDevice, signatures: readonly KeySignature[] | undefined): JsonObject {
  const { displayName } = device
  const unsigned = displayName === undefined ? {} : { device_display_name: displayName }
  return { ...withSignatures(parse(device.json), signatures), unsigned }
}

/** An object with added signatures. An added one replaces one of the same key in the object, because it is later. */
function withSignatures(object: JsonObject, added: readonly KeySignature[] = []): JsonObject {
  if (added.length === 0) return object
  const signatures = new Map(Object.entries(asObject(object['signatures'])))
  for (const [signer, ofSigner] of Map.groupBy(added, (signature) => signature.signer)) {
    const names = ofSigner.map(({ signerKeyId, signature }) => [signerKeyId, signature] as const)
    signatures.set(signer, { ...asObject(signatures.get(signer)), ...Object.fromEntries(names) })
  }
  return { ...object, signatures: Object.fromEntries(signatures) }
}

function asObject(value: unknown): JsonObject {
  return isJsonObject(value) ? value : {}
}

/** Stored texts are canonical JSON of objects. */
export function parse(json: string): JsonObject {
  return JSON.parse(json) as JsonObject
}
