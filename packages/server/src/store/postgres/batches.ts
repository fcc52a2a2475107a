/**
 * Groups concurrent items: those that arrive while a batch runs form the next one. A single item runs at once. Waiting
 * is limited in number and time, and a fault of one item fails no other item.
 */
import { MatrixError, unavailable } from '../../matrix-error.ts'

/** The outcome of one item. */
export type Outcome<Result> = PromiseSettledResult<Result>

export type Ran<Result> = {
  /** In the order of the items. */
  readonly outcomes: readonly Outcome<Result>[]
  /** Resolves when the answers may be sent. The next batch does not wait for it. */
  readonly acknowledged?: Promise<void>
}

export type BatchOptions<Item, Result> = {
  /**
   * Runs a batch. If it throws, nothing of the batch was done; unless the database failed, the items then run one by
   * one, in their order.
   */
  readonly run: (items: readonly Item[]) => Promise<Ran<Result>>
  /** Batches that run at the same time; with one, items take effect in their order. */
  readonly atOnce: number
  /** After this time a running batch no longer counts towards `atOnce`, for up to three batches. Never by default. */
  readonly slowMs?: number
  /** Size of one batch. A larger item runs alone. */
  readonly maxSize: number
  /** 1 by default. */
  readonly sizeOf?: (item: Item) => number
  /** Items that may wait. Further ones are refused with 503. */
  readonly maxWaiting?: number
  /** An item that has waited this long is refused with 503, because running it takes time as well. */
  readonly maxWaitMs?: number
}

type Waiting<Item, Result> = {
  readonly item: Item
  /** On the clock of `performance.now`. */
  readonly sinceMs: number
  readonly resolve: (result: Result) => void
  readonly reject: (error: unknown) => void
}

/** Slow batches that do not count towards `atOnce`. */
const MAX_SLOW = 3
const MAX_WAITING = 10_000
const MAX_WAIT_MS = 10_000

export class Batches<Item, Result> {
  readonly #options: Required<BatchOptions<Item, Result>>
  #waiting: Waiting<Item, Result>[] = []
  #running = 0
  #slow = 0
  #scheduled = false

  constructor(options: BatchOptions<Item, Result>) {
    this.#options = {
      slowMs: Number.POSITIVE_INFINITY,
      sizeOf: () => 1,
      maxWaiting: MAX_WAITING,
      maxWaitMs: MAX_WAIT_MS,
      ...options,
    }
  }

  /** @throws {MatrixError} 503 when too many items wait, or this one waits too long; the error of the item */
  submit(item: Item): Promise<Result> {
    return new Promise((resolve, reject) => {
      if (this.#waiting.length >= this.#options.maxWaiting) {
        return reject(unavailable('Too many requests are waiting for the database.'))
      }
      this.#waiting.push({ item, resolve, reject, sinceMs: performance.now() })
      this.#schedule()
    })
  }

  #schedule(): void {
    const atOnce = this.#options.atOnce + Math.min(this.#slow, MAX_SLOW)
    if (this.#scheduled || this.#waiting.length === 0 || this.#running >= atOnce) return
    this.#scheduled = true
    // Items of the same turn of the event loop join the batch.
    setImmediate(() => {
      this.#scheduled = false
      this.#refuseStale()
      const batch = this.#take()
      if (batch.length === 0) return
      this.#running++
      this.#schedule()
      const isNoLongerSlow = this.#watch()
      void this.#run(batch).finally(() => {
        isNoLongerSlow()
        this.#running--
        this.#schedule()
      })
    })
  }

  /** Counts the batch that begins now as slow after `slowMs`, until the returned function is called. */
  #watch(): () => void {
    const { slowMs } = this.#options
    if (slowMs === Number.POSITIVE_INFINITY) return () => {}
    let slow = 0
    const timer = setTimeout(() => {
      this.#slow += slow = 1
      this.#schedule()
    }, slowMs)
    return () => {
      clearTimeout(timer)
      this.#slow -= slow
    }
  }

  #refuseStale(): void {
    const before = performance.now() - this.#options.maxWaitMs
    const fresh = this.#waiting.findIndex(({ sinceMs }) => sinceMs >= before)
    if (fresh === 0) return
    const stale = this.#waiting.splice(0, fresh === -1 ? this.#waiting.length : fresh)
    for (const { reject } of stale) reject(tooSlow())
  }

  #take(): Waiting<Item, Result>[] {
    const { sizeOf, maxSize } = this.#options
    let size = 0
    const end = this.#waiting.findIndex(({ item }, i) => (size += sizeOf(item)) > maxSize && i > 0)
    return this.#waiting.splice(0, end === -1 ? this.#waiting.length : end)
  }

  /** Refuses an item that has waited too long for the items before it. */
  async #runAlone(one: Waiting<Item, Result>): Promise<void> {
    if (performance.now() - one.sinceMs > this.#options.maxWaitMs) one.reject(tooSlow())
    else await this.#run([one])
  }

  /** Never rejects. */
  async #run(batch: readonly Waiting<Item, Result>[]): Promise<void> {
    const refuse = (error: unknown): void => {
      for (const { reject } of batch) reject(error)
    }
    try {
      const { outcomes, acknowledged } = await this.#options.run(batch.map(({ item }) => item))
      const answer = (): void => {
        for (const [i, { resolve, reject }] of batch.entries()) {
          const outcome = outcomes[i]
          if (outcome?.status === 'fulfilled') resolve(outcome.value)
          else reject(outcome?.reason ?? new Error('a batch has no outcome for one of its items'))
        }
      }
      if (acknowledged === undefined) answer()
      else acknowledged.then(answer, refuse)
    } catch (error) {
      // A failure of the database concerns all items; any other error is the fault of one of them.
      if (batch.length === 1 || (error instanceof MatrixError && error.status === 503)) refuse(error)
      else for (const one of batch) await this.#runAlone(one)
    }
  }
}

function tooSlow(): MatrixError {
  return unavailable('Earlier requests take too long.')
}

/** The outcome of `make`, which may throw. */
export function outcomeOf<Result>(make: () => Result): Outcome<Result> {
  try {
    return { status: 'fulfilled', value: make() }
  } catch (reason) {
    return { status: 'rejected', reason }
  }
}
