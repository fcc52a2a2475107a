/**
 * Group commit of claims: those that arrive while a transaction runs go in the next one (claim-keys.ts). One
 * transaction at a time, because its own cost exceeds that of its claims, and two at once only share the claims between
 * them (measured: twice the processor time per claim). While one waits for a lock, another one begins.
 */
import type { ClaimCommand, ClaimResult } from '../../pool/commands.ts'
import { Batches } from './batches.ts'
import { issue, type NumberedClaim } from './claim-keys.ts'
import type { Claimers } from './claimers.ts'
import { commit, type Core } from './core.ts'
import { UnverifiedServerError } from './fence.ts'
import { purgeStaleDevices, StalePoolsError } from './purge-stale-pools.ts'

/** Keys claimed in one batch: limits how long the first claim waits for the last one. A larger claim runs alone. */
const MAX_TARGETS_PER_BATCH = 1_000
/** Longer than a batch of ordinary size takes that waits for no lock. */
const SLOW_MS = 50

/** The claims of one process. */
export class ClaimBatcher {
  readonly #claimers: Claimers
  readonly #batches: Batches<NumberedClaim, ClaimResult>

  constructor(core: Core, claimers: Claimers) {
    this.#claimers = claimers
    this.#batches = new Batches({
      run: async (claims) => {
        const { result: results, acknowledged } = await issueBatch(core, claims)
        return { outcomes: results.map((value) => ({ status: 'fulfilled', value })), acknowledged }
      },
      atOnce: 1,
      slowMs: SLOW_MS,
      maxSize: MAX_TARGETS_PER_BATCH,
      sizeOf: ({ command }) => command.targets.length,
    })
  }

  async claim(command: ClaimCommand): Promise<ClaimResult> {
    if (command.targets.length === 0) return []
    const claimerNum = await this.#claimers.numOf(command.claimer.name, command.now)
    return this.#batches.submit({ command, claimerNum })
  }
}

async function issueBatch(
  core: Core,
  claims: readonly NumberedClaim[],
): ReturnType<typeof commit<ClaimResult[]>> {
  for (;;) {
    try {
      return await commit(core, (tx) => issue(core, tx, claims))
    } catch (error) {
      if (error instanceof StalePoolsError) await purgeStaleDevices(core, error.devices)
      else if (error instanceof UnverifiedServerError) await core.fence.verifiedByAll(core.db)
      else throw error
    }
  }
}
