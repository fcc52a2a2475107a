/**
 * The pool digest (extensions.md): XOR over the available keys of SHA-256(`algorithm:key_id` NUL material).
 * It is independent of order, so both sides update it incrementally. It detects accidents, not adversaries.
 */
import type { Algorithm, KeyId } from './identifiers.ts'
import type { KeyMaterial } from './key-material.ts'

export const DIGEST_BYTES = 32

/** SHA-256 of a text's UTF-8 bytes: 32 bytes. Passed in, so that this package depends on neither Node nor browsers. */
export type Sha256 = (text: string) => Uint8Array

/** One key's share of the digest. Adding and removing a key are the same XOR. */
export function digestShare(
  sha256: Sha256,
  algorithm: Algorithm,
  keyId: KeyId,
  material: KeyMaterial,
): Uint8Array {
  return sha256(digestText(algorithm, keyId, material))
}

/** The text whose SHA-256 is a key's share of the digest; for platforms that hash asynchronously. */
export function digestText(algorithm: Algorithm, keyId: KeyId, material: KeyMaterial): string {
  return `${algorithm}:${keyId}\0${material}`
}

/** XORs a share into a digest, in place. */
export function mixIn(digest: Uint8Array, share: Uint8Array): void {
  for (let i = 0; i < DIGEST_BYTES; i++) digest[i] = (digest[i] ?? 0) ^ (share[i] ?? 0)
}

/** The digest of an empty pool. */
export function emptyDigest(): Uint8Array {
  return new Uint8Array(DIGEST_BYTES)
}

/** Unpadded base64url, the form of digests and key hashes on the wire. */
export function base64Url(bytes: Uint8Array): string {
  let binary = ''
  for (const byte of bytes) binary += String.fromCharCode(byte)
  return btoa(binary).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
}

/** The bytes of unpadded base64url. @throws {DOMException} when the text is invalid */
export function fromBase64Url(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text.replaceAll('-', '+').replaceAll('_', '/'))
  return Uint8Array.from(binary, (character) => character.charCodeAt(0))
}
