/** How keys stand in the tables: the state codes, and the hash by which material is remembered. */
import { hash } from 'node:crypto'
import {
  digestShare,
  type Algorithm,
  type KeyId,
  type KeyJson,
  type KeyMaterial,
  materialOf,
} from '@latchkey/protocol'
import type { KeyState } from '../pool/port.ts'

export const STATE_CODE = {
  available: 0,
  issued: 1,
  withdrawn: 2,
  evicted: 3,
  purged: 4,
} as const satisfies Record<KeyState, number>

const STATES: readonly KeyState[] = ['available', 'issued', 'withdrawn', 'evicted', 'purged']

export function stateOf(code: number): KeyState {
  const state = STATES[code]
  if (state === undefined) throw new Error(`the database holds an unknown key state ${code}`)
  return state
}

/** The memory of "enter once": 16 bytes of SHA-256. A collision would only cost its own device one key. */
export function materialHash(material: KeyMaterial): Uint8Array {
  return sha256(material).subarray(0, 16)
}

export function sha256(text: string): Uint8Array {
  return hash('sha256', text, 'buffer')
}

/** `key_hash` on the wire. */
export function keyHash(material: KeyMaterial): string {
  return hash('sha256', material, 'base64url')
}

/** The material of a stored key. */
export function materialOfJson(json: string): KeyMaterial {
  return materialOf(JSON.parse(json) as KeyJson)
}

/** A stored key's share of its pool's digest. */
export function shareOf(algorithm: Algorithm, keyId: KeyId, json: string): Uint8Array {
  return digestShare(sha256, algorithm, keyId, materialOfJson(json))
}
