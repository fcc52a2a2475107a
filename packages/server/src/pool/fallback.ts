/**
 * Fallback keys (MSC2732; spec v1.2): one per device and algorithm, in a namespace apart from one-time keys.
 * A new one replaces; the same material sent again stays `used`; one that was replaced before is a late duplicate.
 */
import { keyName, type FallbackOutcome, type KeyMaterial } from '@latchkey/protocol'
import { invalidParam, quoted } from '../matrix-error.ts'
import type { UploadedKey } from './port.ts'

/** What becomes of an uploaded fallback key. `isFormer`: was this material replaced or purged before? */
export function decideFallback(
  uploaded: KeyMaterial,
  current: KeyMaterial | undefined,
  isFormer: (material: KeyMaterial) => boolean,
): FallbackOutcome {
  if (uploaded === current) return 'already_stored'
  return isFormer(uploaded) ? 'already_replaced' : 'stored'
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
