/**
 * Signed JSON (Matrix specification, appendices, "Signing JSON"): the signed text, and the location of a signature. The
 * platform (node:crypto, WebCrypto) verifies; this file only defines the signed bytes.
 */
import { canonicalJson, type Json } from './canonical-json.ts'

export type JsonObject = { readonly [key: string]: Json }

/** True for JSON objects: not arrays, not null. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/**
 * The text whose UTF-8 bytes a signature covers: canonical JSON without `signatures` and `unsigned`.
 *
 * @throws {CanonicalJsonError} when canonical JSON cannot represent the object
 */
export function signedText(object: JsonObject): string {
  const rest = Object.entries(object).filter(([key]) => key !== 'signatures' && key !== 'unsigned')
  return canonicalJson(Object.fromEntries(rest))
}

/** The signature by `signer` with `keyName` (`ed25519:DEVICE`), or undefined. */
export function signatureBy(object: JsonObject, signer: string, keyName: string): string | undefined {
  const signatures = object['signatures']
  const own = isJsonObject(signatures) && Object.hasOwn(signatures, signer) ? signatures[signer] : undefined
  const signature = isJsonObject(own) && Object.hasOwn(own, keyName) ? own[keyName] : undefined
  return typeof signature === 'string' ? signature : undefined
}
