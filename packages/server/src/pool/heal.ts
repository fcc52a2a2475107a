/**
 * The heal of a conflict (key-pool.md "Conflict"): the client lost its keys, so every available key of the pool
 * leaves before the batch is stored. Keys that the batch offers again were not lost: they count as withdrawn and may
 * enter again. The others are purged. Issued keys are not touched, so no message in flight is lost.
 */
import type { HashedKey } from './key.ts'
import type { Pool } from './pool.ts'

/** Empties a pool for the batch that conflicts with it. */
export function heal(pool: Pool, keys: readonly HashedKey[]): void {
  pool.remove(pool.availableAmong(keys), 'withdrawn')
  pool.clear('purged')
}
