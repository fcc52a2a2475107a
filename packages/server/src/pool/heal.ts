/**
 * The heal of a conflict (key-pool.md "Conflict"): the client lost its keys, so every available key of the pool
 * leaves and the batch is stored. Keys that the batch offers again were not lost: they count as withdrawn and may
 * enter again. The others are purged. Issued keys are not touched, so no message in flight is lost.
 */
import type { HashedKey } from './key.ts'
import { decideOutcomes, type Outcomes } from './outcomes.ts'
import type { Pool } from './pool.ts'

/** Heals a pool; returns the outcomes of the batch in the emptied pool. */
export function heal(pool: Pool, keys: readonly HashedKey[]): Outcomes {
  pool.remove(pool.availableAmong(keys), 'withdrawn')
  pool.clear('purged')
  const outcomes = decideOutcomes(keys, pool)
  if (outcomes.conflicts.length > 0) throw new Error('a healed pool still conflicts')
  return outcomes
}
