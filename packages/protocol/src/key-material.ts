/**
 * Key equality: the public key alone decides, never its JSON text or signature (key-pool.md "Material"). A client that
 * signs a key again, or pads its base64, uploads the same key; matrix-spec#1124 depends on this comparison.
 */
import type { Json } from './canonical-json.ts'

declare const brand: unique symbol
/**
 * A public key in normal form: unpadded standard base64 if it is 32 bytes of base64, otherwise the unchanged string.
 */
export type KeyMaterial = string & { readonly [brand]: 'KeyMaterial' }

/** A key object of `/keys/upload`: a plain string, or an object with a `key`. */
export type KeyJson = string | { readonly key: string; readonly [member: string]: Json }

const BASE64_OF_32_BYTES = /^[A-Za-z0-9+/_-]{43}=?$/

/** Whether a key has the length of a Curve25519 key. Placeholders of test suites have others. */
export function isCurve25519(material: KeyMaterial): boolean {
  return material.length === 43 && BASE64_OF_32_BYTES.test(material)
}

/** The material of an uploaded key. */
export function materialOf(key: KeyJson): KeyMaterial {
  return normalise(typeof key === 'string' ? key : key.key)
}

/**
 * 32 bytes in base64 are 43 characters, the last of which has two unused bits. Decoders ignore those bits, so they are
 * cleared. The URL alphabet decodes to the same bytes.
 */
function normalise(text: string): KeyMaterial {
  if (!BASE64_OF_32_BYTES.test(text)) return text as KeyMaterial
  const standard = text.slice(0, 43).replaceAll('-', '+').replaceAll('_', '/')
  const last = ALPHABET.indexOf(standard.charAt(42)) & 0b111100
  return (standard.slice(0, 42) + ALPHABET.charAt(last)) as KeyMaterial
}

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
