/**
 * Fallback keys (MSC2732; spec v1.2): one per device and algorithm, in a namespace apart from one-time keys.
 * A new one replaces; the same material sent again stays `used`; one that was replaced or purged before is a late
 * duplicate and is never issued again.
 */
import { keyName, type FallbackOutcome } from '@latchkey/protocol'
import { invalidParam, quoted } from '../matrix-error.ts'
import type { HashedKey, UploadedKey } from './key.ts'
import type { Pool } from './pool.ts'

/**
 * The outcome of an uploaded fallback key.
 *
 * @param isTaken whether a key has a place elsewhere (one-place.ts)
 */
export function decideFallback(
  key: HashedKey,
  pool: Pick<Pool, 'fallback' | 'wasFallback'>,
  isTaken: (key: HashedKey) => boolean,
): FallbackOutcome {
  if (key.material === pool.fallback?.material) return 'already_stored'
  if (pool.wasFallback(key.hash)) return 'already_replaced'
  return isTaken(key) ? 'in_use_elsewhere' : 'stored'
}

/**
 * At most one fallback key per algorithm in a request.
 *
 * @throws {MatrixError} 400 naming both.
 */
export function requireOnePerAlgorithm(keys: readonly UploadedKey[]): void {
  const seen = new Map<string, UploadedKey>()
  for (const key of keys) {
    const other = seen.get(key.algorithm)
    if (other !== undefined) {
      const names = [other, key].map((k) => quoted(keyName(k.algorithm, k.keyId))).join(' and ')
      throw invalidParam(`fallback_keys has two keys for one algorithm: ${names}; expected at most one.`)
    }
    seen.set(key.algorithm, key)
  }
}
