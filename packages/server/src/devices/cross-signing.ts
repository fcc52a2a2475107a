/**
 * The checks of `/keys/device_signing/upload` (client-server API, "Cross-signing"): the form of each key, and that
 * self-signing and user-signing keys are signed by the master key that comes with them, or else by the stored one. Only
 * signatures that belong on a key are kept: the master key's, and on the master key those of the user's own devices,
 * which are stored apart, so that they end with their device. Others of any number could be invented (issue 11, B5).
 */
import {
  canonicalJson,
  CanonicalJsonError,
  isJsonObject,
  type JsonObject,
  signatureBy,
  signedText,
  type UserId,
  utf8Length,
} from '@latchkey/protocol'
import { verifyEd25519 } from '../lib/ed25519.ts'
import { badJson, invalidParam, invalidSignature, missingParam, quoted, tooLarge } from '../matrix-error.ts'
import type {
  CrossSigningKey,
  CrossSigningUsage,
  KeySignature,
  PublishedKeys,
  SignedCrossSigning,
} from './port.ts'
import { parse } from './query-keys.ts'
import { deviceSigningKeys, verifiedSignatures } from './signatures.ts'

/** Public keys are part of JSON keys and of signature names, so their text must have one normal form. */
const UNPADDED_BASE64_OF_32_BYTES = /^[A-Za-z0-9+/]{43}$/
/** A cross-signing key with one signature has about 300 bytes. */
const MAX_KEY_BYTES = 4_096

/** The member of the request that carries each key. */
export type UploadedCrossSigning = Readonly<Partial<Record<CrossSigningUsage, JsonObject>>>

/**
 * The uploaded keys that differ from the stored ones, checked. None: the request changes nothing (MSC3967).
 *
 * @throws {MatrixError} 400 M_INVALID_PARAM, M_INVALID_SIGNATURE, M_MISSING_PARAM or M_BAD_JSON, 413 M_TOO_LARGE.
 */
export function changedCrossSigning(
  owner: UserId,
  uploaded: UploadedCrossSigning,
  published: Pick<PublishedKeys, 'crossSigning' | 'devices'>,
): SignedCrossSigning {
  const stored = published.crossSigning
  const keys = (['master', 'self_signing', 'user_signing'] as const).flatMap((usage) => {
    const object = uploaded[usage]
    return object === undefined ? [] : [decode(owner, usage, object)]
  })
  const master = [...keys, ...stored].find((key) => key.usage === 'master')
  for (const key of keys) {
    if (key.usage !== 'master') requireSignedBy(owner, master, key)
  }
  const changed = keys.filter((key) => !stored.some((other) => isSameKey(owner, master, key, other)))
  return {
    keys: changed.map((key) => withSignatureOf(owner, master, key)),
    signatures: changed.flatMap((key) => deviceSignatures(owner, published, key)),
  }
}

/** The key with no other signature than that of the master key. The master key keeps none: it does not sign itself. */
function withSignatureOf(
  owner: UserId,
  master: CrossSigningKey | undefined,
  key: CrossSigningKey,
): CrossSigningKey {
  const object = parse(key.json)
  if (object['signatures'] === undefined) return key
  const by = key.usage === 'master' ? undefined : master
  const signature = by && masterSignature(owner, by, object)
  const signatures =
    by === undefined || signature === undefined ? {} : { [owner]: { [`ed25519:${by.publicKey}`]: signature } }
  return { ...key, json: canonicalJson({ ...object, signatures }) }
}

/** Signatures on an uploaded master key by devices of the user whose keys are known and who did sign it. */
function deviceSignatures(
  owner: UserId,
  { devices }: Pick<PublishedKeys, 'devices'>,
  { usage, publicKey, json }: CrossSigningKey,
): KeySignature[] {
  if (usage !== 'master') return []
  const object = parse(json)
  return verifiedSignatures(owner, deviceSigningKeys(devices), object).map(({ name, signature }) => ({
    keyId: publicKey,
    signer: owner,
    signerKeyId: name,
    signature,
  }))
}

function decode(owner: UserId, usage: CrossSigningUsage, object: JsonObject): CrossSigningKey {
  const member = `${usage}_key`
  const userId = object['user_id']
  if (userId !== owner) {
    const found = typeof userId === 'string' ? quoted(userId) : 'no string'
    throw invalidParam(`${member}.user_id is ${found}; expected the caller's own, ${quoted(owner)}.`)
  }
  const usages = object['usage']
  if (!Array.isArray(usages) || !usages.includes(usage)) {
    throw invalidParam(`${member}.usage: expected an array with ${quoted(usage)}.`)
  }
  const publicKey = publicKeyOf(member, object)
  try {
    if (utf8Length(signedText(object)) > MAX_KEY_BYTES)
      throw tooLarge(`${member} is larger than ${MAX_KEY_BYTES} bytes without its signatures.`)
    const { unsigned: _, ...signed } = object
    return { usage, publicKey, json: canonicalJson(signed) }
  } catch (error) {
    if (error instanceof CanonicalJsonError)
      throw badJson(`${member} cannot be signed JSON: ${error.message}.`)
    throw error
  }
}

function publicKeyOf(member: string, object: JsonObject): string {
  const keys = object['keys']
  const [entry, ...rest] = isJsonObject(keys) ? Object.entries(keys) : []
  if (entry === undefined || rest.length > 0) throw invalidParam(`${member}.keys: expected exactly one key.`)
  const [name, value] = entry
  if (typeof value !== 'string' || !UNPADDED_BASE64_OF_32_BYTES.test(value) || name !== `ed25519:${value}`) {
    throw invalidParam(
      `${member}.keys has ${quoted(name)}; expected "ed25519:KEY" with the value KEY, 32 bytes in unpadded base64.`,
    )
  }
  return value
}

function requireSignedBy(owner: UserId, master: CrossSigningKey | undefined, key: CrossSigningKey): void {
  if (master === undefined) {
    throw missingParam(
      `${key.usage}_key needs a master_key, in this request or stored before; there is none.`,
    )
  }
  const object = parse(key.json)
  const signature = masterSignature(owner, master, object)
  if (signature === undefined || !verifyEd25519(master.publicKey, signature, signedText(object))) {
    throw invalidSignature(
      `${key.usage}_key is not signed by the master key ${quoted(`ed25519:${master.publicKey}`)}.`,
    )
  }
}

function masterSignature(owner: UserId, master: CrossSigningKey, object: JsonObject): string | undefined {
  return signatureBy(object, owner, `ed25519:${master.publicKey}`)
}

/** The same key with the same signature of the master key. Other signatures are added by `/keys/signatures/upload`. */
function isSameKey(
  owner: UserId,
  master: CrossSigningKey | undefined,
  a: CrossSigningKey,
  b: CrossSigningKey,
): boolean {
  if (a.usage !== b.usage) return false
  const [x, y] = [parse(a.json), parse(b.json)]
  if (signedText(x) !== signedText(y)) return false
  if (a.usage === 'master' || master === undefined) return true
  return masterSignature(owner, master, x) === masterSignature(owner, master, y)
}
