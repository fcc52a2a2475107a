/**
 * Rate limit of a manager's questions and heals. A server whose every answer leads to another request (a new epoch each
 * time, endless 409s, a fallback key that is always missing) would otherwise keep a client busy forever. Only time
 * refills the allowance, never an answer.
 */
import type { RateLimitedAction, Status } from './records.ts'
import type { Step } from './step.ts'

/** Requests allowed at once. */
const BURST = 8
/** Time until one more is allowed, ms. */
const REFILL_MS = { keys_query: 300_000, keys_pool: 300_000, keys_reset: 300_000, fallback: 3_600_000 }

/** Whether one more request is allowed now. */
export function isAllowed({ rateLimits }: Status, what: RateLimitedAction, now: number): boolean {
  return left(rateLimits, what, now) >= 1
}

/** Counts one request. */
export function countAction(step: Step, what: RateLimitedAction): void {
  const { rateLimits } = step.status
  const rest = Math.max(0, left(rateLimits, what, step.now) - 1)
  step.patch({ rateLimits: { ...rateLimits, [what]: { at: step.now, left: rest } } })
}

function left(rateLimits: Status['rateLimits'], what: RateLimitedAction, now: number): number {
  const last = rateLimits[what]
  // A clock that was moved back must not stop the refill until it has caught up.
  if (last === undefined || now < last.at) return BURST
  return Math.min(BURST, last.left + (now - last.at) / REFILL_MS[what])
}
