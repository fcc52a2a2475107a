/**
 * The account or address that pays for a request (costs.ts), from a token bucket of this process (issue 11, C1). A
 * request that the bucket cannot pay is a 429 before the work that it would pay for.
 */
import type { TokenBuckets } from '../lib/token-bucket.ts'
import { limitExceeded } from '../matrix-error.ts'
import type { Cost } from './costs.ts'

export class Payer {
  readonly #buckets: TokenBuckets
  readonly #key: string
  readonly #now: () => number
  readonly #retryWithinMs: number
  #paid = 0

  constructor(buckets: TokenBuckets, key: string, now: () => number, { retryWithinMs }: Cost) {
    this.#buckets = buckets
    this.#key = key
    this.#now = now
    this.#retryWithinMs = retryWithinMs ?? Number.POSITIVE_INFINITY
  }

  /** Units that the request has paid so far. */
  get paid(): number {
    return this.#paid
  }

  /** @throws {MatrixError} 429 when the bucket cannot pay; it pays nothing then. */
  pay(units: number): void {
    if (units <= 0) return
    const waitMs = this.#buckets.take(this.#key, this.#now(), units)
    if (waitMs > 0) {
      throw limitExceeded(
        'You asked this server for more work than it does for one user or address: retry later, or name fewer users, devices and keys.',
        Math.min(waitMs, this.#retryWithinMs),
      )
    }
    this.#paid += units
  }

  /** Pays for work that is already done; the bucket may owe it. */
  owe(units: number): void {
    if (units > 0) this.#buckets.charge(this.#key, this.#now(), units)
  }
}
