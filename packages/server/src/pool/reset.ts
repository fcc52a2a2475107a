/**
 * `/keys/reset` (MSC4162), with the preconditions that close its holes (key-pool.md "Reset").
 * Withdrawn keys were never issued and are safe to forget; absent ones may be in flight and must be kept.
 */
import { keyPoolOf } from './key-pool.ts'
import { MatrixError } from '../matrix-error.ts'
import type { PoolStatus, ResetCommand } from './port.ts'

/** How long the answer to a reset with a request ID is replayed. */
export const REPLAY_RESET_MS = 24 * 60 * 60 * 1000
/** How many such answers a device may have remembered. None goes before its day is over: a late duplicate would count. */
export const REPLAYED_RESETS_PER_DEVICE = 1_000

/**
 * Versions and generations compare only within one epoch, so a request that names another epoch never matches.
 *
 * @throws {MatrixError} 409 DEV.LATCHKEY.M_POOL_CHANGED with the current key_pool.
 */
export function checkPreconditions(
  command: Pick<ResetCommand, 'ifEpoch' | 'ifGeneration' | 'ifVersion'>,
  status: PoolStatus,
): void {
  const changed = (what: string, expected: string | number, found: string | number): MatrixError =>
    new MatrixError(
      409,
      'DEV.LATCHKEY.M_POOL_CHANGED',
      `Expected ${what} ${expected}, found ${found}: nothing was changed. Read the pool and decide again.`,
      { 'dev.latchkey.key_pool': keyPoolOf(status) },
    )
  const { ifEpoch, ifGeneration, ifVersion } = command
  if (ifEpoch !== undefined && ifEpoch !== status.epoch) throw changed('epoch', ifEpoch, status.epoch)
  if (ifGeneration !== undefined && ifGeneration !== status.generation) {
    throw changed('generation', ifGeneration, status.generation)
  }
  if (ifVersion !== undefined && ifVersion !== status.version)
    throw changed('version', ifVersion, status.version)
}
