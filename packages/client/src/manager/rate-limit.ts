/**
 * How often a manager asks or mends, whatever the server answers. One whose answers each lead to another request (a new
 * epoch every time, 409 for ever, a fallback key that is never there) would otherwise keep a client busy without end.
 * Nothing that a server says refills the allowance; only time does.
 */
import type { Paced, Status } from './records.ts'
import type { Step } from './step.ts'

/** So many at once, */
const BURST = 8
/** and then one in so many ms. */
const REFILL_MS = { keys_query: 300_000, keys_pool: 300_000, keys_reset: 300_000, fallback: 3_600_000 }

/** Whether one more is allowed now. */
export function isAllowed({ paced }: Status, what: Paced, now: number): boolean {
  return left(paced, what, now) >= 1
}

/** Counts one. */
export function notePaced(step: Step, what: Paced): void {
  const { paced } = step.status
  const rest = Math.max(0, left(paced, what, step.now) - 1)
  step.patch({ paced: { ...paced, [what]: { at: step.now, left: rest } } })
}

function left(paced: Status['paced'], what: Paced, now: number): number {
  const last = paced[what]
  // A clock that was set back must not stop the refill until it has caught up.
  if (last === undefined || now < last.at) return BURST
  return Math.min(BURST, last.left + (now - last.at) / REFILL_MS[what])
}
