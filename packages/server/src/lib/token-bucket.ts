/**
 * Token buckets, one per key, in a bounded table: the server's rate limiter. A full bucket is equivalent to none, so
 * only full ones are dropped: flooding the table cannot evict an empty bucket. While the table has only refilling
 * buckets, new keys are not limited; refusing them would let a flood lock others out.
 */
import { hash } from 'node:crypto'

export type BucketRate = {
  /** Tokens in a full bucket. */
  readonly burst: number
  /** Tokens refilled per second. */
  readonly perSecond: number
}

type Bucket = { tokens: number; ts: number }

const MAX_BUCKETS = 100_000
/** Longer keys are stored as a hash, so that client-chosen keys cannot fill the memory. */
const MAX_KEY_LENGTH = 600
/** Minimum interval between sweeps for full buckets; a sweep of a full table takes a few milliseconds. */
const SWEEP_EVERY_MS = 10_000

export class TokenBuckets {
  readonly #rate: BucketRate
  readonly #maxBuckets: number
  readonly #buckets = new Map<string, Bucket>()
  #sweptTs = 0

  constructor(rate: BucketRate, maxBuckets = MAX_BUCKETS) {
    this.#rate = rate
    this.#maxBuckets = maxBuckets
  }

  /**
   * Takes `amount` tokens, all or none. Returns 0 if they were available, else the milliseconds until they are. More
   * than `burst` tokens are available from a full bucket, which then owes the difference.
   */
  take(key: string, nowMs: number, amount = 1): number {
    const waitMs = this.peek(key, nowMs, amount)
    this.charge(key, nowMs, waitMs === 0 ? amount : 0)
    return waitMs
  }

  /** Takes `amount` tokens whether they are available or not: the cost of what has been done already. */
  charge(key: string, nowMs: number, amount: number): void {
    const name = boundedKey(key)
    const bucket = this.#buckets.get(name)
    const left = this.#tokensIn(bucket, nowMs) - amount
    if (bucket !== undefined) {
      bucket.tokens = left
      bucket.ts = nowMs
    } else if (this.#canAdd(nowMs)) this.#buckets.set(name, { tokens: left, ts: nowMs })
  }

  /** Returns tokens that were taken for an operation that did not happen. */
  refund(key: string, amount = 1): void {
    const bucket = this.#buckets.get(boundedKey(key))
    if (bucket !== undefined) bucket.tokens = Math.min(this.#rate.burst, bucket.tokens + amount)
  }

  /** Returns what `take` would, without taking any. */
  peek(key: string, nowMs: number, amount = 1): number {
    const { burst, perSecond } = this.#rate
    const missing = Math.min(amount, burst) - this.#tokensIn(this.#buckets.get(boundedKey(key)), nowMs)
    return missing <= 0 ? 0 : (missing / perSecond) * 1000
  }

  /** A clock adjusted backwards neither adds nor removes tokens. */
  #tokensIn(bucket: Bucket | undefined, nowMs: number): number {
    const { burst, perSecond } = this.#rate
    if (bucket === undefined) return burst
    return Math.min(burst, bucket.tokens + (Math.max(0, nowMs - bucket.ts) / 1000) * perSecond)
  }

  #canAdd(nowMs: number): boolean {
    if (Math.abs(nowMs - this.#sweptTs) >= SWEEP_EVERY_MS) {
      this.#sweptTs = nowMs
      for (const [name, bucket] of this.#buckets) {
        if (this.#tokensIn(bucket, nowMs) >= this.#rate.burst) this.#buckets.delete(name)
      }
    }
    return this.#buckets.size < this.#maxBuckets
  }
}

function boundedKey(key: string): string {
  return key.length <= MAX_KEY_LENGTH ? key : hash('sha256', key, 'base64url')
}
