/** The limits of pools that no other file owns (key-pool.md "Limits"). The numbers are PoolPolicy's. */
import { type Algorithm, SIGNED_CURVE25519 } from '@latchkey/protocol'
import { invalidParam, limitExceeded, type MatrixError } from '../matrix-error.ts'
import type { PoolPolicy } from './policy.ts'

/** SDKs sleep through Retry-After, so a flooding client never waits longer. */
export const RETRY_FLOOD_MS = 2_000

/**
 * The algorithms that a device may have keys for. `signed_curve25519` is always allowed.
 *
 * @throws {MatrixError} 400 when a new one is over the limit.
 */
export function requireAlgorithms(
  known: ReadonlySet<Algorithm>,
  wanted: readonly Algorithm[],
  limit: number,
): void {
  const all = new Set(known)
  for (const algorithm of wanted) {
    if (all.has(algorithm)) continue
    if (all.size >= limit && algorithm !== SIGNED_CURVE25519)
      throw invalidParam(`This device has keys for ${limit} algorithms, which is the limit.`)
    all.add(algorithm)
  }
}

/**
 * Bytes of one key object. A Curve25519 key with its signatures takes about 210; objects of algorithms that do not
 * exist yet may carry larger keys.
 */
export function keyObjectLimit(
  algorithm: Algorithm,
  { keyObjectBytes, otherKeyObjectBytes }: Pick<PoolPolicy, 'keyObjectBytes' | 'otherKeyObjectBytes'>,
): number {
  return CURVE25519_ALGORITHMS.has(algorithm) ? keyObjectBytes : otherKeyObjectBytes
}

const CURVE25519_ALGORITHMS: ReadonlySet<string> = new Set([SIGNED_CURVE25519, 'curve25519'])

/** A rate limit of one device, with a wait that SDKs can sleep through. */
export function tooFast(what: string, waitMs: number): MatrixError {
  return limitExceeded(`This device ${what} too often.`, Math.min(waitMs, RETRY_FLOOD_MS))
}
