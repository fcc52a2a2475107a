/**
 * Token buckets per network of a client (client-network.ts): a wider network has more tokens than one address, and far
 * fewer than all its addresses would have.
 */
import { networksOf } from './client-network.ts'
import { type BucketRate, TokenBuckets } from './token-bucket.ts'

/** Multiples of the rate for the /64, the /56 and the /48. */
const WIDTHS = [1, 2, 4] as const

export class NetworkBuckets {
  readonly #levels: readonly TokenBuckets[]

  constructor({ burst, perSecond }: BucketRate) {
    this.#levels = WIDTHS.map(
      (width) => new TokenBuckets({ burst: burst * width, perSecond: perSecond * width }),
    )
  }

  /**
   * Takes a token of each network of the address, all or none. Returns 0 if there were, else the milliseconds until
   * there are.
   *
   * @param subject buckets of different subjects are apart
   */
  take(address: string, nowMs: number, subject = ''): number {
    const waitMs = this.peek(address, nowMs, subject)
    if (waitMs === 0) for (const [level, name] of this.#buckets(address, subject)) level.take(name, nowMs)
    return waitMs
  }

  /** Returns what `take` would, without taking any. */
  peek(address: string, nowMs: number, subject = ''): number {
    return Math.max(...this.#buckets(address, subject).map(([level, name]) => level.peek(name, nowMs)))
  }

  /** As `take`, for the narrowest network only: others in the wider ones do not count. */
  takeNarrowest(address: string, nowMs: number, subject = ''): number {
    const [narrowest] = this.#buckets(address, subject)
    return narrowest === undefined ? 0 : narrowest[0].take(narrowest[1], nowMs)
  }

  #buckets(address: string, subject: string): (readonly [TokenBuckets, string])[] {
    return networksOf(address).flatMap((network, i) => {
      const level = this.#levels[i]
      return level === undefined ? [] : [[level, `${network} ${subject}`] as const]
    })
  }
}
