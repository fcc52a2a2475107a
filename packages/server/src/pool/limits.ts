/** The limits of pools that no other file owns (key-pool.md "Limits"). The numbers are PoolPolicy's. */
import { type Algorithm, SIGNED_CURVE25519 } from '@latchkey/protocol'
import { invalidParam, limitExceeded, type MatrixError } from '../matrix-error.ts'

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

/** A rate limit of one device, with a wait that SDKs can sleep through. */
export function tooFast(what: string, waitMs: number): MatrixError {
  return limitExceeded(`This device ${what} too often.`, Math.min(waitMs, RETRY_FLOOD_MS))
}
