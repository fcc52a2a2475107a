/**
 * How many keys may be made in a day, whatever the server says: one that always claims to have none must not fill the
 * disk or wear the store out (MSC4162, review). Durable, by the hour, so that it holds over restarts.
 */
import type { Status } from './records.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

/** Keys made in the last 24 hours; times that seem to lie in the future count as of now. */
export function generatedToday({ generated }: Pick<Status, 'generated'>, now: number): number {
  return generated.reduce((sum, { at, count }) => (now - at < DAY_MS ? sum + count : sum), 0)
}

/** The record after `count` more. At most 25 entries. */
export function withGenerated({ generated }: Status, count: number, now: number): Status['generated'] {
  const kept = generated
    .filter(({ at }) => now - at < DAY_MS)
    // A clock that was set back must not make an entry count for ever.
    .map(({ at, count }) => ({ at: Math.min(at, now), count }))
  const last = kept.at(-1)
  if (last !== undefined && now - last.at < HOUR_MS) {
    return [...kept.slice(0, -1), { at: last.at, count: last.count + count }]
  }
  return [...kept, { at: now, count }]
}
