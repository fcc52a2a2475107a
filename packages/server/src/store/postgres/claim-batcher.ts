/**
 * Group commit of claims: what arrived while the last flush ran is issued in one transaction (claim-keys.ts). One flush
 * at a time: its cost is that of the transaction, far more than that of its claims, and two at once only share the
 * claims between them (measured: twice the processor time per claim). A flush that has to wait lets another begin.
 */
import type { ClaimCommand, ClaimResult } from '../../pool/commands.ts'
import { Batches } from './batches.ts'
import { issue, type NumberedClaim } from './claim-keys.ts'
import type { Claimers } from './claimers.ts'
import { commit, type Core } from './core.ts'
import { NotLooked } from './fence.ts'
import { purgeStaleDevices, StalePoolsError } from './purge-stale-pools.ts'

/** Keys asked for in one flush: bounds how long the first of them waits for the last. A larger claim goes alone. */
const MAX_TARGETS_PER_FLUSH = 1_000
/** Longer than a flush takes that waits for nobody's lock and is not very large. */
const SLOW_MS = 50

/** The claims of one process. */
export class ClaimBatcher {
  readonly #claimers: Claimers
  readonly #flushes: Batches<NumberedClaim, ClaimResult>

  constructor(core: Core, claimers: Claimers) {
    this.#claimers = claimers
    this.#flushes = new Batches({
      run: async (claims) => {
        const { result: results, acknowledged } = await flush(core, claims)
        return { outcomes: results.map((value) => ({ status: 'fulfilled', value })), acknowledged }
      },
      atOnce: 1,
      slowMs: SLOW_MS,
      maxSize: MAX_TARGETS_PER_FLUSH,
      sizeOf: ({ command }) => command.targets.length,
    })
  }

  async claim(command: ClaimCommand): Promise<ClaimResult> {
    if (command.targets.length === 0) return []
    const claimerNum = await this.#claimers.numOf(command.claimer.name)
    return this.#flushes.ask({ command, claimerNum })
  }
}

async function flush(core: Core, claims: readonly NumberedClaim[]): ReturnType<typeof commit<ClaimResult[]>> {
  for (;;) {
    try {
      return await commit(core, (tx) => issue(core, tx, claims))
    } catch (error) {
      if (error instanceof StalePoolsError) await purgeStaleDevices(core, error.devices)
      else if (error instanceof NotLooked) await core.fence.othersHaveLooked(core.db)
      else throw error
    }
  }
}
