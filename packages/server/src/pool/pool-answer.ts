/**
 * The caller's pools in the answers of upload, reset and sync: counts, unused fallback types and `key_pool`.
 * All of one answer come from one PoolStatus (key-pool.md "Fresh"); `signed_curve25519` is always listed, 0 included.
 */
import { base64Url, emptyDigest, type KeyPool, SIGNED_CURVE25519 } from '@latchkey/protocol'
import type { PoolStatus } from './commands.ts'

/** algorithm -> available one-time keys. */
export function countsOf(status: PoolStatus): Record<string, number> {
  const counts = [
    [SIGNED_CURVE25519, 0] as const,
    ...status.algorithms.map((a) => [a.algorithm, a.count] as const),
  ]
  return Object.fromEntries(counts)
}

/** Algorithms with a fallback key that no claim has used. */
export function unusedFallbackTypes(status: PoolStatus): string[] {
  return status.algorithms.filter((a) => a.fallback?.used === false).map((a) => a.algorithm)
}

/** The `dev.latchkey.key_pool` member. */
export function keyPoolOf(status: PoolStatus): KeyPool {
  return {
    epoch: status.epoch,
    version: status.version,
    generation: status.generation,
    digest: Object.fromEntries([
      [SIGNED_CURVE25519, base64Url(emptyDigest())] as const,
      ...status.algorithms.map((a) => [a.algorithm, a.digest] as const),
    ]),
    fallback: Object.fromEntries(
      status.algorithms.flatMap((a) => (a.fallback ? [[a.algorithm, a.fallback.keyHash]] : [])),
    ),
  }
}
