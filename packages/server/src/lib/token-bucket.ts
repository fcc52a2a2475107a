/**
 * Token buckets, one per key, in a bounded table: the one rate limiter of the server. A full bucket is the same as none,
 * so full ones are dropped, and no others: nobody floods the table to have an empty bucket forgotten. While it holds
 * nothing but buckets that still refill, a newcomer goes uncounted; to refuse it would let a flood lock others out.
 */
import { hash } from 'node:crypto'

export type BucketRate = {
  /** How many at once, from a full bucket. */
  readonly burst: number
  /** How many come back per second. */
  readonly perSecond: number
}

type Bucket = { tokens: number; ts: number }

const MAX_BUCKETS = 100_000
/** Longer keys are kept as their hash, so that what a client makes up cannot fill the memory. */
const MAX_KEY_LENGTH = 600
/** How often, at most, the table is looked through for full buckets: a few milliseconds for the longest. */
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

  /** Takes one token. Returns 0 when there was one, else the milliseconds until there will be. */
  take(key: string, nowMs: number): number {
    const name = boundedKey(key)
    const bucket = this.#buckets.get(name)
    const tokens = this.#tokensIn(bucket, nowMs)
    const left = tokens >= 1 ? tokens - 1 : tokens
    if (bucket !== undefined) {
      bucket.tokens = left
      bucket.ts = nowMs
    } else if (this.#hasRoom(nowMs)) this.#buckets.set(name, { tokens: left, ts: nowMs })
    return this.#waitMs(tokens)
  }

  /** Gives back a token that was taken for nothing. */
  refund(key: string): void {
    const bucket = this.#buckets.get(boundedKey(key))
    if (bucket !== undefined) bucket.tokens = Math.min(this.#rate.burst, bucket.tokens + 1)
  }

  /** What `take` would return, without taking. */
  peek(key: string, nowMs: number): number {
    return this.#waitMs(this.#tokensIn(this.#buckets.get(boundedKey(key)), nowMs))
  }

  /** A clock that was set back brings nothing and takes nothing. */
  #tokensIn(bucket: Bucket | undefined, nowMs: number): number {
    const { burst, perSecond } = this.#rate
    if (bucket === undefined) return burst
    return Math.min(burst, bucket.tokens + (Math.max(0, nowMs - bucket.ts) / 1000) * perSecond)
  }

  #waitMs(tokens: number): number {
    return tokens >= 1 ? 0 : ((1 - tokens) / this.#rate.perSecond) * 1000
  }

  #hasRoom(nowMs: number): boolean {
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
