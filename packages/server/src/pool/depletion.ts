/**
 * The depletion defence (key-pool.md "Claim"): how many one-time keys of one device may be issued to one user of this
 * server, and to another server for all of its users, before claim.ts answers with the fallback key or keeps a reserve.
 * Asked only when a one-time key is about to be issued, so a claim that finds none costs nothing and leaves nothing in
 * memory.
 *
 * Users of this server share no bucket, because ten accounts could then give everyone else the fallback key (issue 11,
 * B2). So the defence bounds what one account drains in the long run, and not what many accounts drain: there the
 * low-water wake (wake.ts) and the refill are the defence.
 */
import { type BucketRate, TokenBuckets } from '../lib/token-bucket.ts'
import type { DeviceRef } from '../session.ts'
import type { ClaimBudget } from './claim.ts'
import type { Claimer } from './commands.ts'

export interface DepletionDefence {
  /** Whether the claimer may still have a one-time key of the device; if so, it counts as taken. */
  takesOneTimeKey(claimer: Claimer, device: DeviceRef, now: number): boolean
  /** Over the budget: whether the claimer may have a key of the device's reserve; if so, it counts as taken. */
  takesOfReserve(claimer: Claimer, device: DeviceRef, now: number): boolean
}

/** Another server has the budget of this many users. */
const USERS_PER_SERVER = 10
/** Over its budget another server gets one key of a reserve per device and minute: its honest users share it. */
const OF_RESERVE: BucketRate = { burst: 1, perSecond: 1 / 60 }

/**
 * A bucket per (claimer, device), in bounded tables (token-bucket.ts).
 *
 * A flood of claims cannot make a table drop a bucket before it is full again. It can fill a table, after which new
 * pairs are not counted: that takes a real one-time key for each of 100 000 pairs, and as many again whenever one
 * refills (a minute by default). It gains no more than further accounts would.
 */
export class ClaimBudgets implements DepletionDefence {
  readonly #buckets: Readonly<Record<Claimer['by'], TokenBuckets>>
  readonly #ofReserve: TokenBuckets

  constructor(perUser: BucketRate, maxBuckets?: number) {
    const { burst, perSecond } = perUser
    const perServer = { burst: burst * USERS_PER_SERVER, perSecond: perSecond * USERS_PER_SERVER }
    this.#buckets = {
      user: new TokenBuckets(perUser, maxBuckets),
      server: new TokenBuckets(perServer, maxBuckets),
    }
    this.#ofReserve = new TokenBuckets(OF_RESERVE, maxBuckets)
  }

  takesOneTimeKey({ by, id }: Claimer, device: DeviceRef, now: number): boolean {
    return this.#buckets[by].take(`${device} ${id}`, now) === 0
  }

  takesOfReserve({ by, id }: Claimer, device: DeviceRef, now: number): boolean {
    return by === 'server' && this.#ofReserve.take(`${device} ${id}`, now) === 0
  }
}

/** The budget of a claimer for the keys of one device; without a defence it is never used up. */
export function budgetFor(
  defence: DepletionDefence | undefined,
  claimer: Claimer,
  device: DeviceRef,
  now: number,
): ClaimBudget {
  return {
    takesOneTimeKey: () => defence?.takesOneTimeKey(claimer, device, now) ?? true,
    takesOfReserve: () => defence?.takesOfReserve(claimer, device, now) ?? true,
  }
}
