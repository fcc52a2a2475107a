/**
 * One place for each Curve25519 key of a device (key-pool.md "Material"; issue 11, A5): the same public key under two
 * algorithms, or as a one-time key and a fallback key, could be claimed twice. A place is a key that is available, or
 * that was issued, evicted, purged, or ever a fallback key: those never enter again, anywhere. A withdrawn one-time key
 * was never issued, so it may be offered again in any place. Keys of other lengths are placeholders, which test suites
 * use under several algorithms: they are compared within their algorithm and kind only.
 */
import { type Algorithm, isCurve25519 } from '@latchkey/protocol'
import type { HashedKey } from './key.ts'
import type { Pool } from './pool.ts'
import type { WantedFacts } from './port.ts'

export type KeyKind = 'one_time_key' | 'fallback_key'

/** Whether a key has a place in these pools, other than as a key of this kind in `own`. */
export function isElsewhere(key: HashedKey, kind: KeyKind, own: Pool, pools: Iterable<Pool>): boolean {
  if (!isCurve25519(key.material)) return false
  for (const pool of pools) {
    if ((pool !== own || kind === 'fallback_key') && pool.hasOneTimeKey(key.hash)) return true
    if ((pool !== own || kind === 'one_time_key') && pool.hasFallback(key)) return true
  }
  return false
}

type Offered = Pick<WantedFacts, 'oneTimeKeys' | 'fallbackKeys'>

/** The keys of a request that may be in the log of one pool: its own, and all that have one place only. */
export function mayBeLogged({ oneTimeKeys, fallbackKeys }: Offered, algorithm: Algorithm): HashedKey[] {
  const others = fallbackKeys.filter(({ material }) => isCurve25519(material))
  return [...oneTimeKeys.filter(isOfInterest(algorithm)), ...others]
}

/** The keys of a request that one pool may have had as fallback keys. */
export function mayBeFormerFallback(
  { oneTimeKeys, fallbackKeys }: Offered,
  algorithm: Algorithm,
): HashedKey[] {
  const others = oneTimeKeys.filter(({ material }) => isCurve25519(material))
  return [...fallbackKeys.filter(isOfInterest(algorithm)), ...others]
}

function isOfInterest(algorithm: Algorithm): (key: HashedKey) => boolean {
  return (key) => key.algorithm === algorithm || isCurve25519(key.material)
}
