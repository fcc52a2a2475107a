/**
 * The checks of `/keys/signatures/upload` (client-server API, "Cross-signing"). Accepted are exactly:
 * - on an own device, the signature by the signer's self-signing key;
 * - on the own master key, signatures by the signer's devices;
 * - on another user's master key, the signature by the signer's user-signing key.
 */
import { CanonicalJsonError, type JsonObject, signatureBy, signedText, type UserId } from '@latchkey/protocol'
import { verifyEd25519 } from '../lib/ed25519.ts'
import { badJson, invalidParam, invalidSignature, MatrixError, notFound, quoted } from '../matrix-error.ts'
import { identityOf } from '../pool/identity.ts'
import type { CrossSigningUsage, KeySignature, PublishedKeys } from './port.ts'
import { parse } from './query-keys.ts'

/** A key that may have signed: its public half and its name in `signatures`. */
type SigningKey = { readonly name: string; readonly publicKey: string }

/** Signatures of one object that are verified at once, about 0.2 ms each. A device signs with its own key alone. */
const MAX_SIGNATURES_PER_OBJECT = 20

/** 64 bytes in base64, with or without padding. The decoder accepts other characters, which would take any space. */
const SIGNATURE = /^[A-Za-z0-9+/]{86}(?:==)?$/

/** A user and the user's published keys. */
export type KeyOwner = { readonly userId: UserId; readonly published: PublishedKeys }

/**
 * The signatures of `signer` in an uploaded object that are valid and not yet published. None: all are published.
 *
 * @param keyId a device ID, or a master public key, of `owner`
 * @throws {MatrixError} 404 M_NOT_FOUND: no such key; 400 M_UNKNOWN: not the published object;
 * 400 M_INVALID_PARAM: too many signatures; 400 M_INVALID_SIGNATURE: no signature by a key that may sign it, or a
 * wrong one; 400 M_BAD_JSON.
 */
export function newSignatures(
  signer: KeyOwner,
  owner: KeyOwner,
  keyId: string,
  uploaded: JsonObject,
): readonly KeySignature[] {
  const { object, signingKeys, expected } = findTarget(signer, owner, keyId)
  const text = textOf(keyId, uploaded)
  if (text !== signedText(object)) {
    throw new MatrixError(400, 'M_UNKNOWN', `Key does not match the one published as ${quoted(keyId)}.`)
  }
  const found = signingKeys.flatMap((key) => {
    const signature = signatureBy(uploaded, signer.userId, key.name)
    return signature === undefined ? [] : [{ key, signature }]
  })
  requireFewSignatures(found.length)
  if (found.length === 0) throw invalidSignature(`${quoted(keyId)} has no signature by ${expected}.`)
  const known = new Set(
    owner.published.signatures
      .filter((other) => other.keyId === keyId && other.signer === signer.userId)
      .map((other) => `${other.signerKeyId} ${other.signature}`),
  )
  const added = found.filter(
    ({ key, signature }) =>
      signatureBy(object, signer.userId, key.name) !== signature && !known.has(`${key.name} ${signature}`),
  )
  const wrong = added.find(({ key, signature }) => !isSignature(key, signature, text))
  if (wrong !== undefined)
    throw invalidSignature(`The signature by ${quoted(wrong.key.name)} does not verify.`)
  return added.map(({ key, signature }) => ({
    keyId,
    signer: signer.userId,
    signerKeyId: key.name,
    signature,
  }))
}

type Target = {
  readonly object: JsonObject
  readonly signingKeys: readonly SigningKey[]
  /** The keys that may sign it, in words. */
  readonly expected: string
}

function findTarget(signer: KeyOwner, owner: KeyOwner, keyId: string): Target {
  const { devices, crossSigning } = owner.published
  const own = owner.userId === signer.userId
  const device = own ? devices.find((other) => other.deviceId === keyId) : undefined
  if (device !== undefined) {
    const signingKeys = crossSigningKey(signer, 'self_signing')
    return { object: parse(device.json), signingKeys, expected: 'your self-signing key' }
  }
  const master = crossSigning.find((key) => key.usage === 'master' && key.publicKey === keyId)
  if (master === undefined) {
    const kinds = own ? 'a device or the master key' : 'the master key'
    throw notFound(`${quoted(keyId)} is not ${kinds} of this user.`)
  }
  const object = parse(master.json)
  return own
    ? { object, signingKeys: deviceSigningKeys(signer.published.devices), expected: 'a device of yours' }
    : { object, signingKeys: crossSigningKey(signer, 'user_signing'), expected: 'your user-signing key' }
}

function crossSigningKey({ published }: KeyOwner, usage: CrossSigningUsage): SigningKey[] {
  return published.crossSigning
    .filter((key) => key.usage === usage)
    .map(({ publicKey }) => ({ name: `ed25519:${publicKey}`, publicKey }))
}

/** The keys with which devices sign. */
export function deviceSigningKeys(devices: PublishedKeys['devices']): SigningKey[] {
  return devices.flatMap(({ deviceId, json }) => {
    const publicKey = identityOf(parse(json), deviceId).ed25519
    return publicKey === undefined ? [] : [{ name: `ed25519:${deviceId}`, publicKey }]
  })
}

/**
 * The signatures in an object by these keys of a user that verify.
 *
 * @throws {MatrixError} 400 M_INVALID_PARAM: too many signatures.
 */
export function verifiedSignatures(
  signer: UserId,
  keys: readonly SigningKey[],
  object: JsonObject,
): { readonly name: string; readonly signature: string }[] {
  const text = signedText(object)
  const found = keys.flatMap((key) => {
    const signature = signatureBy(object, signer, key.name)
    return signature === undefined ? [] : [{ key, signature }]
  })
  requireFewSignatures(found.length)
  return found
    .filter(({ key, signature }) => isSignature(key, signature, text))
    .map(({ key, signature }) => ({ name: key.name, signature }))
}

function requireFewSignatures(count: number): void {
  if (count <= MAX_SIGNATURES_PER_OBJECT) return
  throw invalidParam(
    `The object has ${count} signatures by your keys; at most ${MAX_SIGNATURES_PER_OBJECT} are accepted at once.`,
  )
}

function isSignature({ publicKey }: SigningKey, signature: string, text: string): boolean {
  return SIGNATURE.test(signature) && verifyEd25519(publicKey, signature, text)
}

function textOf(keyId: string, object: JsonObject): string {
  try {
    return signedText(object)
  } catch (error) {
    if (error instanceof CanonicalJsonError)
      throw badJson(`${quoted(keyId)} cannot be signed JSON: ${error.message}.`)
    throw error
  }
}
