/**
 * The budget of a sender of to-device messages: one bucket of deliveries and one of bytes per user, `*` expanded
 * (issue 11, B1). At rest they take ten full fan-outs to 10 000 devices at once, because SDKs share room keys like that
 * and may lose them on a 429. A repeat, a request that delivers nothing and a refused one cost nothing here; reading
 * them costs work (http/costs.ts). The buckets are in the process: N workers give a user up to N budgets.
 */
import { type BucketRate, TokenBuckets } from '../lib/token-bucket.ts'
import { limitExceeded, type MatrixError } from '../matrix-error.ts'
import type { UserRef } from '../session.ts'
import type { InboxLoad } from './inbox.ts'

export type SendRates = {
  /** Messages in inboxes. */
  readonly toDeviceDeliveriesPerUser: BucketRate
  /** 1024 characters of messages in inboxes. */
  readonly toDeviceKibPerUser: BucketRate
}

/** The charge for one request, however often its transaction runs. */
export type SendCharge = {
  /** Takes the charge in place of an earlier one. Returns 0, or the milliseconds until the budget has it. */
  take(load: InboxLoad): number
  /** Gives back what was taken, because nothing was delivered. */
  refund(): void
}

const KIB = 1024
/** SDKs sleep through Retry-After. */
const MAX_RETRY_MS = 2_000

export class SendBudgets {
  readonly #deliveries: TokenBuckets
  readonly #kib: TokenBuckets

  constructor({ toDeviceDeliveriesPerUser, toDeviceKibPerUser }: SendRates) {
    this.#deliveries = new TokenBuckets(toDeviceDeliveriesPerUser)
    this.#kib = new TokenBuckets(toDeviceKibPerUser)
  }

  charge(sender: UserRef, now: number): SendCharge {
    const key = String(sender)
    let taken: InboxLoad | undefined
    const refund = (): void => {
      if (taken === undefined) return
      this.#deliveries.refund(key, taken.messages)
      this.#kib.refund(key, taken.length / KIB)
      taken = undefined
    }
    return {
      take: (load) => {
        refund()
        const waitMs = Math.max(
          this.#deliveries.peek(key, now, load.messages),
          this.#kib.peek(key, now, load.length / KIB),
        )
        if (waitMs > 0) return waitMs
        this.#deliveries.charge(key, now, load.messages)
        this.#kib.charge(key, now, load.length / KIB)
        taken = load
        return 0
      },
      refund,
    }
  }
}

export function sendsTooFast({ messages, length }: InboxLoad, waitMs: number): MatrixError {
  return limitExceeded(
    `This account sends to-device messages too fast: its budget lacks room for ${messages} deliveries with ` +
      `${Math.ceil(length / KIB)} KiB. Nothing was delivered; send the same request again later.`,
    Math.min(waitMs, MAX_RETRY_MS),
  )
}
