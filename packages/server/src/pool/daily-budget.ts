/**
 * Budgets of a day (key-pool.md "Limits"): the keys that a device stores, the keys and bytes that all devices of a user
 * store together, the heals of a device. Those of a user belong to the account, so neither a logout nor a new device ID
 * renews them (issue 11).
 *
 * A day begins with the first thing that counts and ends after 24 hours of the server's clock. Where the clock moved
 * backwards, the day begins again with what it has counted: this frees nothing, and blocks no user for more than a day.
 */
import { limitExceeded, MatrixError } from '../matrix-error.ts'
import type { Budget, DayCount, DayCounts } from './day-count.ts'
import { RememberedRefusal } from './decision.ts'
import { RETRY_FLOOD_MS } from './limits.ts'
import type { PoolPolicy } from './policy.ts'

export type DayLimits = Pick<PoolPolicy, (typeof LIMITS)[Budget]>

const LIMITS = {
  device_keys: 'keysPerDeviceAndDay',
  user_keys: 'keysPerUserAndDay',
  user_bytes: 'keyBytesPerUserAndDay',
  heals: 'healsPerDeviceAndDay',
} as const satisfies Record<Budget, keyof PoolPolicy>

const DAY_MS = 24 * 60 * 60 * 1000

/** A refusal because a budget of a day is used up, so that it can be logged and counted. */
export class BudgetError extends MatrixError {
  readonly budget: Budget

  constructor(budget: Budget, { status, errcode, message, extra }: MatrixError) {
    super(status, errcode, message, extra)
    this.budget = budget
  }
}

/**
 * Counts what a request uses. A limit of 0 limits nothing and counts nothing.
 *
 * @param refuse the answer over a budget
 * @throws {BudgetError} when it is more than a budget has left.
 */
export function countUsed<Used extends Budget>(
  counts: DayCounts,
  used: Readonly<Record<Used, number>>,
  limits: DayLimits,
  now: number,
  refuse: (budget: NoInfer<Used>, limit: number) => MatrixError,
): DayCounts {
  let after = counts
  for (const budget of Object.keys(used) as Used[]) {
    const limit = limits[LIMITS[budget]]
    if (used[budget] === 0 || limit === 0) continue
    const { start, used: before } = dayAt(counts[budget], now)
    if (before + used[budget] > limit) {
      const error = new BudgetError(budget, refuse(budget, limit))
      const isSetBack = now < counts[budget].start
      // Otherwise a refusal stores nothing.
      if (isSetBack)
        throw new RememberedRefusal(error, { counts: { ...counts, [budget]: { start, used: before } } })
      throw error
    }
    after = { ...after, [budget]: { start, used: before + used[budget] } }
  }
  return after
}

/** The day that a point in time belongs to. */
function dayAt({ start, used }: DayCount, now: number): DayCount {
  if (now - start >= DAY_MS) return { start: now, used: 0 }
  return { start: Math.min(start, now), used }
}

/** The answer to a request that stores too many keys. */
export function storesTooMuch(budget: Exclude<Budget, 'heals'>, limit: number): MatrixError {
  const most = {
    device_keys: `This device may store ${limit} keys`,
    user_keys: `The devices of this account may store ${limit} keys`,
    user_bytes: `The devices of this account may store ${limit} bytes of keys`,
  }[budget]
  return limitExceeded(
    `${most} within 24 hours; nothing of the request was stored. Upload fewer keys, or try again later.`,
    RETRY_FLOOD_MS,
  )
}
