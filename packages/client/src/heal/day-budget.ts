/**
 * Amount spent within the last 24 hours. Stored by the hour, so that the record stays small and survives restarts.
 * Entries more than a day in the future (a clock moved back) are dropped; they would count until the clock caught up.
 */

export type Spent = readonly { readonly at: number; readonly count: number }[]

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

/** The amount spent in the last 24 hours. */
export function spentToday(spent: Spent, now: number): number {
  return spent.reduce((sum, { at, count }) => (Math.abs(now - at) < DAY_MS ? sum + count : sum), 0)
}

/** The record after `count` more. At most 25 entries. */
export function withSpent(spent: Spent, count: number, now: number): Spent {
  const kept = spent
    .filter(({ at }) => Math.abs(now - at) < DAY_MS)
    // A clock that was moved back must not make an entry count forever.
    .map((entry) => ({ at: Math.min(entry.at, now), count: entry.count }))
  const last = kept.at(-1)
  if (last !== undefined && now - last.at < HOUR_MS) {
    return [...kept.slice(0, -1), { at: last.at, count: last.count + count }]
  }
  return [...kept, { at: now, count }]
}

/** The record after a refund of `count`, latest entries first. */
export function withRefund(spent: Spent, count: number): Spent {
  let left = count
  const kept = spent.toReversed().map((entry) => {
    const back = Math.min(left, entry.count)
    left -= back
    return { at: entry.at, count: entry.count - back }
  })
  return kept.toReversed()
}
