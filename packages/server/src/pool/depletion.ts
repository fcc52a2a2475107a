/**
 * The depletion defence (key-pool.md "Claim"): how many one-time keys of one device may be issued to one user, and to
 * all users of one server, before their claims receive the fallback key. Asked only when a one-time key is about to be
 * issued, so a claim that finds none costs nothing and leaves nothing in memory.
 *
 * It bounds what one account drains in the long run, and the accounts of one server together. It does not bound
 * accounts of many servers, nor a device without a fallback key: there the low-water wake (wake.ts) and the refill
 * are the defence.
 */
import { type BucketRate, TokenBuckets } from '../lib/token-bucket.ts'
import type { DeviceRef } from '../session.ts'
import type { Claimer } from './commands.ts'

export interface DepletionDefence {
  /** Whether the claimer may still have a one-time key of the device; if so, it counts as taken. */
  takesOneTimeKey(claimer: Claimer, device: DeviceRef, now: number): boolean
}

/** The budget of one server is that of this many users. */
const USERS_PER_ORIGIN = 10

/**
 * A bucket per (claiming user, device) and a larger one per (origin server, device), both in bounded tables
 * (token-bucket.ts).
 *
 * A flood of claims cannot make a table drop a bucket before it is full again. It can fill a table, after which new
 * pairs are not counted: that takes a real one-time key for each of 100 000 pairs, and as many again whenever one
 * refills (a minute by default). It gains no more than further accounts would, and the larger buckets, in a table of
 * their own, still bound it.
 */
export class ClaimBudgets implements DepletionDefence {
  readonly #ofUser: TokenBuckets
  readonly #ofOrigin: TokenBuckets

  constructor(perUser: BucketRate, maxBuckets?: number) {
    const { burst, perSecond } = perUser
    const perOrigin = { burst: burst * USERS_PER_ORIGIN, perSecond: perSecond * USERS_PER_ORIGIN }
    this.#ofUser = new TokenBuckets(perUser, maxBuckets)
    this.#ofOrigin = new TokenBuckets(perOrigin, maxBuckets)
  }

  /** From both buckets or from neither: a user over its own budget uses up nothing of the others'. */
  takesOneTimeKey({ user, origin }: Claimer, device: DeviceRef, now: number): boolean {
    const ofUser = `${device} ${user}`
    if (this.#ofUser.peek(ofUser, now) > 0) return false
    if (this.#ofOrigin.take(`${device} ${origin}`, now) > 0) return false
    this.#ofUser.take(ofUser, now)
    return true
  }
}
