/**
 * A key as the pools know it: its states, and the hash by which its material is remembered.
 * "The same key" means the same material (protocol/src/key-material.ts); the memory of it is 16 bytes of SHA-256.
 */
import { hash } from 'node:crypto'
import {
  type Algorithm,
  digestShare,
  type KeyId,
  type KeyJson,
  type KeyMaterial,
  materialOf,
} from '@latchkey/protocol'

/** A key is `available` until it leaves its pool, and never available again under the same row. */
export type KeyState = 'available' | 'issued' | Removal

/** How a key leaves other than by being issued. */
export type Removal = 'withdrawn' | 'evicted' | 'purged'

/** A key of an upload, decoded. `json` is the text that claimers get. */
export type UploadedKey = {
  readonly algorithm: Algorithm
  readonly keyId: KeyId
  readonly material: KeyMaterial
  readonly json: string
}

declare const brand: unique symbol
/** The first 16 bytes of the SHA-256 of a key's material, in hexadecimal. */
export type MaterialHash = string & { readonly [brand]: 'MaterialHash' }

export type HashedKey = UploadedKey & { readonly hash: MaterialHash }

/** The memory of "enter once" (key-pool.md "Invariants"). A collision would cost its own device one key. */
export function materialHash(material: KeyMaterial): MaterialHash {
  return hash('sha256', material, 'hex').slice(0, 32) as MaterialHash
}

export function hashed(keys: readonly UploadedKey[]): HashedKey[] {
  return keys.map((key) => ({ ...key, hash: materialHash(key.material) }))
}

/** `key_hash` on the wire (extensions.md): base64url of the SHA-256 of the material. */
export function keyHash(material: KeyMaterial): string {
  return hash('sha256', material, 'base64url')
}

/** The material of a key, from its stored text. */
export function materialOfJson(json: string): KeyMaterial {
  return materialOf(JSON.parse(json) as KeyJson)
}

/** A key's share of its pool's digest, 32 bytes (protocol/src/pool-digest.ts). */
export function shareOf(algorithm: Algorithm, keyId: KeyId, material: KeyMaterial): Uint8Array {
  return digestShare(sha256, algorithm, keyId, material)
}

function sha256(text: string): Uint8Array {
  return hash('sha256', text, 'buffer')
}
