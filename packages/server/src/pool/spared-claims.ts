/**
 * What the operator hears of the depletion defence (depletion.ts): of each claimer and device once in a while, with the
 * number since the last time. A pair that falls out of the table is heard of once more; nothing else is lost.
 */
import type { DeviceId, UserId } from '@latchkey/protocol'
import { LRUCache } from 'lru-cache'

/** Pairs kept in mind: under 1 kB each. */
const MAX_PAIRS = 10_000
const REPORT_EVERY_MS = 10 * 60 * 1000

export class SparedClaims {
  readonly #unreported = new LRUCache<string, { readonly reportedTs: number; count: number }>({
    max: MAX_PAIRS,
  })

  /** Counts a spared claim. Returns how many to report now: 0 while the last report is recent. */
  note(
    claimer: UserId,
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
