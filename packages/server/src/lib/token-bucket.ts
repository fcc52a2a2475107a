/**
 * Token buckets, one per key, in a bounded table: the one rate limiter of the server. A bucket that falls out of the
 * table starts full again, so the bound errs on the side of the client.
 */
import { LRUCache } from 'lru-cache'

export type BucketRate = {
  /** How many at once, from a full bucket. */
  readonly burst: number
  /** How many come back per second. */
  readonly perSecond: number
}

const MAX_BUCKETS = 100_000

export class TokenBuckets {
  readonly #rate: BucketRate
  readonly #buckets = new LRUCache<string, { tokens: number; ts: number }>({ max: MAX_BUCKETS })

  constructor(rate: BucketRate) {
    this.#rate = rate
  }

  /** Takes one token. Returns 0 when there was one, else the milliseconds until there will be. */
  take(key: string, nowMs: number): number {
    const { burst, perSecond } = this.#rate
    const bucket = this.#buckets.get(key) ?? { tokens: burst, ts: nowMs }
    const elapsedMs = Math.max(0, nowMs - bucket.ts)
    const tokens = Math.min(burst, bucket.tokens + (elapsedMs / 1000) * perSecond)
    const taken = tokens >= 1
    this.#buckets.set(key, { tokens: taken ? tokens - 1 : tokens, ts: nowMs })
    return taken ? 0 : ((1 - tokens) / perSecond) * 1000
  }
}
