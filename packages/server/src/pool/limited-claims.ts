/**
 * Log entries about the depletion defence (depletion.ts): each claimer and device at most every ten minutes, with the
 * number of claims since the last report. A pair evicted from the table is reported again.
 */
import type { DeviceId, UserId } from '@latchkey/protocol'
import { LRUCache } from 'lru-cache'

/** Pairs in the table: under 1 kB each. */
const MAX_PAIRS = 10_000
const REPORT_EVERY_MS = 10 * 60 * 1000

export class LimitedClaims {
  readonly #unreported = new LRUCache<string, { readonly reportedTs: number; count: number }>({
    max: MAX_PAIRS,
  })

  /** Counts a claim over the budget. Returns how many to report now: 0 while the last report is recent. */
  note(
    claimer: string,
    target: { readonly userId: UserId; readonly deviceId: DeviceId },
    now: number,
  ): number {
    const pair = `${claimer}\0${target.userId}\0${target.deviceId}`
    const known = this.#unreported.get(pair)
    if (known !== undefined && Math.abs(now - known.reportedTs) < REPORT_EVERY_MS) {
      known.count++
      return 0
    }
    this.#unreported.set(pair, { reportedTs: now, count: 0 })
    return (known?.count ?? 0) + 1
  }
}
