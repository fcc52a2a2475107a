/** The size and rate limits of pools, as errors (key-pool.md "Upload", "Limits"). The numbers are PoolPolicy's. */
import { invalidParam, limitExceeded, type MatrixError } from '../matrix-error.ts'

/** SDKs sleep through Retry-After, so a flooding client is never sent away for long. */
const RETRY_FLOOD_MS = 2_000

export function overDailyBudget(budget: number): MatrixError {
  return limitExceeded(
    `This device stored ${budget} one-time keys within 24 hours, which is the limit; nothing of the request was stored.`,
    RETRY_FLOOD_MS,
  )
}

export function tooManyAlgorithms(limit: number): MatrixError {
  return invalidParam(`This device has keys for ${limit} algorithms, which is the limit.`)
}

export function tooManyResets(limit: number): MatrixError {
  return limitExceeded(
    `This device reset its keys ${limit} times with a request ID within 24 hours, which is the limit; nothing was changed.`,
    RETRY_FLOOD_MS,
  )
}

/** A rate limit of one device, with a wait that SDKs can sleep through. */
export function tooFast(what: string, waitMs: number): MatrixError {
  return limitExceeded(`This device ${what} too often.`, Math.min(waitMs, RETRY_FLOOD_MS))
}
