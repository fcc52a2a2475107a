/**
 * The networks from which an account has logged in before: limits that strangers can use up do not apply there (issue
 * 11, C5). Stored as a keyed hash, a few per user, for the retention time.
 */
import { createHmac, hkdfSync } from 'node:crypto'
import { networkOf } from '../lib/client-network.ts'

/** Over it, those of the oldest logins are forgotten. */
export const NETWORKS_PER_USER = 32

export type HashNetwork = (address: string) => string

/** @param secret of the database; what is derived from it is used for this alone */
export function networkHasher(secret: string): HashNetwork {
  const key = new Uint8Array(hkdfSync('sha256', secret, '', 'latchkey known networks', 32))
  return (address) => createHmac('sha256', key).update(networkOf(address)).digest('base64url')
}
