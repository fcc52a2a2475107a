/**
 * Group commit of claims: what arrived while the last flush ran is issued in one transaction (claim-keys.ts). The same
 * device always goes through the same lane, so lanes of one process do not wait for each other.
 */
import { hash } from 'node:crypto'
import { MatrixError, unavailable } from '../../matrix-error.ts'
import type { ClaimCommand, ClaimResult } from '../../pool/port.ts'
import { issue, nameOf, type NumberedClaim } from './claim-keys.ts'
import type { Claimers } from './claimers.ts'
import { commit, type Core } from './core.ts'
import { BelowFence, freshenDevices } from './freshen.ts'

type Waiting = NumberedClaim & {
  /** On the clock of `performance.now`. */
  readonly sinceMs: number
  readonly resolve: (result: ClaimResult) => void
  readonly reject: (error: unknown) => void
}

/** Keys asked for in one flush: bounds how long the first of them waits for the last. A larger claim goes alone. */
const MAX_TARGETS_PER_FLUSH = 1_000
/** Claims that may wait in a lane: beyond it callers are told to come back. */
const MAX_WAITING = 10_000
/** A claim that has waited so long for the flush ahead is told to come back: what follows takes time, too. */
const MAX_WAIT_MS = 10_000

/** The lanes of one process. */
export class ClaimLanes {
  readonly #lanes: readonly Lane[]
  readonly #claimers: Claimers

  constructor(core: Core, claimers: Claimers, lanes: number) {
    this.#claimers = claimers
    this.#lanes = Array.from({ length: lanes }, () => new Lane(core))
  }

  async claim(command: ClaimCommand): Promise<ClaimResult> {
    const [first] = command.targets
    if (first === undefined) return []
    const claimerNum = await this.#claimers.numOf(command.claimer.name)
    const lane = this.#lanes[hash('sha256', nameOf(first), 'buffer').readUInt32BE() % this.#lanes.length]
    if (lane === undefined) throw new Error('a claim has no lane')
    return lane.add(command, claimerNum)
  }
}

class Lane {
  readonly #core: Core
  #waiting: Waiting[] = []
  #running = false

  constructor(core: Core) {
    this.#core = core
  }

  add(command: ClaimCommand, claimerNum: number): Promise<ClaimResult> {
    return new Promise((resolve, reject) => {
      if (this.#waiting.length >= MAX_WAITING) {
        return reject(unavailable('More claims are waiting than the server holds.'))
      }
      this.#waiting.push({ command, claimerNum, resolve, reject, sinceMs: performance.now() })
      if (this.#running) return
      this.#running = true
      // What arrives in the same turn of the event loop goes with it.
      setImmediate(() => void this.#run())
    })
  }

  async #run(): Promise<void> {
    while (this.#waiting.length > 0) {
      this.#refuseStale()
      await this.#flush(this.#next())
    }
    this.#running = false
  }

  #refuseStale(): void {
    const before = performance.now() - MAX_WAIT_MS
    const stale = this.#waiting.filter(({ sinceMs }) => sinceMs < before)
    if (stale.length === 0) return
    this.#waiting = this.#waiting.filter(({ sinceMs }) => sinceMs >= before)
    for (const { reject } of stale) reject(unavailable('The claims ahead of this one take too long.'))
  }

  #next(): Waiting[] {
    let targets = 0
    const end = this.#waiting.findIndex(
      ({ command }, i) => (targets += command.targets.length) > MAX_TARGETS_PER_FLUSH && i > 0,
    )
    const batch = end === -1 ? this.#waiting : this.#waiting.slice(0, end)
    this.#waiting = end === -1 ? [] : this.#waiting.slice(end)
    return batch
  }

  async #flush(batch: readonly Waiting[]): Promise<void> {
    if (batch.length === 0) return
    const refuse = (error: unknown): void => {
      for (const { reject } of batch) reject(error)
    }
    try {
      const { result: results, acknowledged } = await this.#issue(batch)
      // The next flush need not wait for the witness, only these answers do.
      acknowledged.then(() => {
        for (const [i, { resolve }] of batch.entries()) resolve(results[i] ?? [])
      }, refuse)
    } catch (error) {
      // One claim must not fail those of others: a fault that is not the database's is some claim's own.
      if (error instanceof MatrixError || batch.length === 1) refuse(error)
      else for (const claim of batch) await this.#flush([claim])
    }
  }

  async #issue(batch: readonly Waiting[]): ReturnType<typeof commit<ClaimResult[]>> {
    for (;;) {
      try {
        return await commit(this.#core, (tx) => issue(this.#core, tx, batch))
      } catch (error) {
        if (!(error instanceof BelowFence)) throw error
        await freshenDevices(this.#core, error.devices)
      }
    }
  }
}
