/**
 * How many keys a device may store within a day (key-pool.md "Limits"): one-time keys, fallback keys and changes of
 * identity. The day begins with the first key that counts; a clock that moved backwards begins a new one.
 */
import { limitExceeded } from '../matrix-error.ts'
import { RETRY_FLOOD_MS } from './limits.ts'

/** The keys that a device has stored since its day began. `start` is in milliseconds since 1970. */
export type DayCount = { readonly start: number; readonly stored: number }

const DAY_MS = 24 * 60 * 60 * 1000

/**
 * Counts what a request stores.
 *
 * @param budget 0 means unlimited
 * @throws {MatrixError} 429 when it is more than the budget has left.
 */
export function countStored(day: DayCount, stored: number, budget: number, now: number): DayCount {
  if (stored === 0 || budget === 0) return day
  const isOver = now - day.start >= DAY_MS || now < day.start
  const total = (isOver ? 0 : day.stored) + stored
  if (total > budget) {
    throw limitExceeded(
      `This device stored ${budget} one-time keys within 24 hours, which is the limit; nothing of the request was stored.`,
      RETRY_FLOOD_MS,
    )
  }
  return { start: isOver ? now : day.start, stored: total }
}
