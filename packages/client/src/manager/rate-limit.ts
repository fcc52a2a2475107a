/**
 * How often a manager asks or mends, whatever the server answers. One whose answers each lead to another request (a new
 * epoch every time, 409 for ever, a fallback key that is never there) would otherwise keep a client busy without end.
 * Nothing that a server says refills the allowance; only time does.
 */
import type { RateLimitedAction, Status } from './records.ts'
import type { Step } from './step.ts'

/** So many at once, */
const BURST = 8
/** and then one in so many ms. */
const REFILL_MS = { keys_query: 300_000, keys_pool: 300_000, keys_reset: 300_000, fallback: 3_600_000 }

/** Whether one more is allowed now. */
export function isAllowed({ rateLimits }: Status, what: RateLimitedAction, now: number): boolean {
  return left(rateLimits, what, now) >= 1
}

/** Counts one. */
export function countAction(step: Step, what: RateLimitedAction): void {
  const { rateLimits } = step.status
  const rest = Math.max(0, left(rateLimits, what, step.now) - 1)
  step.patch({ rateLimits: { ...rateLimits, [what]: { at: step.now, left: rest } } })
}

function left(rateLimits: Status['rateLimits'], what: RateLimitedAction, now: number): number {
  const last = rateLimits[what]
  // A clock that was set back must not stop the refill until it has caught up.
  if (last === undefined || now < last.at) return BURST
  return Math.min(BURST, last.left + (now - last.at) / REFILL_MS[what])
}
