/** Access tokens and generated device IDs. A token leaves the server once, at login; only its hash is kept. */
import { hash, randomBytes, randomInt } from 'node:crypto'
import type { DeviceId } from '@latchkey/protocol'
import type { TokenHash } from '../session.ts'

const TOKEN_BYTES = 32
const DEVICE_ID_LETTERS = 10
const CAPITAL_A = 65

/** `lk_` and 256 random bits: the prefix lets secret scanners recognise a leaked one. */
export function newAccessToken(): string {
  return `lk_${randomBytes(TOKEN_BYTES).toString('base64url')}`
}

export function hashToken(token: string): TokenHash {
  return hash('sha256', token, 'base64url') as TokenHash
}

/** Ten capital letters, as users know them from other servers. */
export function newDeviceId(): DeviceId {
  const letters = Array.from({ length: DEVICE_ID_LETTERS }, () => CAPITAL_A + randomInt(26))
  return String.fromCharCode(...letters) as DeviceId
}
