/**
 * How much of something was done within a day: by the hour, so that the record stays small, and for the store, so that it
 * holds over restarts. What seems to lie more than a day in the future (a clock set back) is forgotten, or it would
 * count until the clock has caught up.
 */

export type Spent = readonly { readonly at: number; readonly count: number }[]

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

/** What was spent in the last 24 hours. */
export function spentToday(spent: Spent, now: number): number {
  return spent.reduce((sum, { at, count }) => (Math.abs(now - at) < DAY_MS ? sum + count : sum), 0)
}

/** The record after `count` more. At most 25 entries. */
export function withSpent(spent: Spent, count: number, now: number): Spent {
  const kept = spent
    .filter(({ at }) => Math.abs(now - at) < DAY_MS)
    // A clock that was set back must not make an entry count for ever.
    .map(({ at, count }) => ({ at: Math.min(at, now), count }))
  const last = kept.at(-1)
  if (last !== undefined && now - last.at < HOUR_MS) {
    return [...kept.slice(0, -1), { at: last.at, count: last.count + count }]
  }
  return [...kept, { at: now, count }]
}

/** The record after `count` were given back, the latest first. */
export function withRefund(spent: Spent, count: number): Spent {
  let left = count
  const kept = spent.toReversed().map((entry) => {
    const back = Math.min(left, entry.count)
    left -= back
    return { at: entry.at, count: entry.count - back }
  })
  return kept.toReversed()
}
