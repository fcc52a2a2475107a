/**
 * Syncs that wait for news, by device and by user. A registered sync is woken from that moment on, waiting or not.
 * wait-places.ts bounds those that wait.
 */
import type { DeviceRef, Session, UserRef } from '../session.ts'
import { type WaitingSync, type WaitLimits, WaitPlaces } from './wait-places.ts'

/** Syncs that one change wakes without delay. */
const AT_ONCE = 20
/** Delay of a change that concerns more, for each of them: a woken sync takes less than a tenth of it. */
const SPREAD_MS = 5
const MAX_SPREAD_MS = 30_000

export class SyncWaiters {
  readonly #places: WaitPlaces
  readonly #now: () => number
  readonly #byDevice = new Map<DeviceRef, Set<Waiter>>()
  readonly #byUser = new Map<UserRef, Set<Waiter>>()
  #closed = false

  /** @param now milliseconds of a clock that only goes forwards */
  constructor(limits: WaitLimits, now: () => number) {
    this.#places = new WaitPlaces(limits)
    this.#now = now
  }

  /** Waiting syncs. */
  get count(): number {
    return this.#places.count
  }

  /**
   * Wakes a sync from now on, until it is disposed of. Its wait ends `timeoutMs` after it began, when the client
   * disconnects, or at close. In each case the caller reads once more.
   */
  register(session: Session, timeoutMs: number, clientGone: () => AbortSignal): Waiter {
    const { deviceRef, userRef } = session
    const sync: WaitingSync = { deviceRef, userRef, endAfter: (ms) => waiter.endAfter(ms) }
    const waiter: Waiter = new Waiter(timeoutMs, clientGone, this.#now, {
      begin: () => this.#places.take(sync),
      end: () => this.#places.leave(sync),
      gone: () => {
        remove(this.#byDevice, deviceRef, waiter)
        remove(this.#byUser, userRef, waiter)
      },
    })
    add(this.#byDevice, deviceRef, waiter)
    add(this.#byUser, userRef, waiter)
    if (this.#closed) waiter.finish()
    return waiter
  }

  wakeDevice(ref: DeviceRef): void {
    for (const waiter of this.#byDevice.get(ref) ?? []) waiter.wake()
  }

  /** Wakes the syncs of users, for a change of account data or of device lists. */
  wakeUsers(refs: readonly UserRef[]): void {
    wakeSpread(refs.flatMap((ref) => [...(this.#byUser.get(ref) ?? [])]))
  }

  wakeEveryone(): void {
    wakeSpread([...this.#byDevice.values()].flatMap((waiters) => [...waiters]))
  }

  /** Answers all syncs. None waits from now on. */
  close(): void {
    this.#closed = true
    for (const waiters of this.#byDevice.values()) for (const waiter of waiters) waiter.finish()
  }
}

/**
 * Wakes many syncs over a while, because each one is answered and comes back: 600 at once would delay all other
 * requests by their work together (issue 11, C2). A message or a signal for its device wakes a sync earlier.
 */
function wakeSpread(waiters: readonly Waiter[]): void {
  const spreadMs = waiters.length <= AT_ONCE ? 0 : Math.min(MAX_SPREAD_MS, waiters.length * SPREAD_MS)
  for (const waiter of waiters) waiter.wakeWithin(spreadMs)
}

type Places = { readonly begin: () => void; readonly end: () => void; readonly gone: () => void }

/** One sync. A wake-up during a reading is kept for the next wait, so that none is lost. */
class Waiter implements Disposable {
  readonly #timeoutMs: number
  readonly #clientGone: () => AbortSignal
  readonly #now: () => number
  readonly #places: Places
  #state: 'registered' | 'waits' | 'over' = 'registered'
  #woken = false
  #resume: (() => void) | undefined
  #timer: NodeJS.Timeout | undefined
  #beganMs = 0
  /** A wake-up that is spread. */
  #later: NodeJS.Timeout | undefined
  #signal: AbortSignal | undefined

  constructor(timeoutMs: number, clientGone: () => AbortSignal, now: () => number, places: Places) {
    this.#timeoutMs = timeoutMs
    this.#clientGone = clientGone
    this.#now = now
    this.#places = places
  }

  /** The wait has ended. */
  get over(): boolean {
    return this.#state === 'over'
  }

  /** Has a place among the waiting syncs. Kept while a wake-up makes it read again. */
  get waits(): boolean {
    return this.#state === 'waits'
  }

  /**
   * Resolves at the next wake-up, or at once if there was one since the last or the wait has ended. The reading that
   * follows sees everything that woke it so far, so several wake-ups in a turn cause one reading.
   *
   * @throws {MatrixError} 429 or 503 when there is no place to wait (wait-places.ts)
   */
  async next(): Promise<void> {
    if (this.#state === 'registered' && !this.#woken) this.#begin()
    if (!this.#woken && !this.over) await new Promise<void>((resolve) => (this.#resume = resolve))
    this.#woken = false
    clearTimeout(this.#later)
    this.#later = undefined
  }

  wake(): void {
    this.#woken = true
    this.#release()
  }

  /** Wakes it at a random moment, at once if it does not wait yet. The moment of an earlier change is kept. */
  wakeWithin(ms: number): void {
    if (!this.waits || ms === 0) return this.wake()
    this.#later ??= setTimeout(() => this.wake(), Math.random() * ms).unref()
  }

  /** Ends the wait when it has lasted this long, at once if it already has. */
  endAfter(ms: number): void {
    const leftMs = this.#beganMs + ms - this.#now()
    if (leftMs <= 0) return this.finish()
    if (ms >= this.#timeoutMs) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(this.finish, leftMs)
  }

  /** Ends the wait. */
  readonly finish = (): void => {
    if (this.over) return
    if (this.waits) this.#places.end()
    this.#state = 'over'
    clearTimeout(this.#timer)
    clearTimeout(this.#later)
    this.#signal?.removeEventListener('abort', this.finish)
    this.#release()
  };

  [Symbol.dispose](): void {
    this.finish()
    this.#places.gone()
  }

  #begin(): void {
    const signal = this.#clientGone()
    if (signal.aborted) return this.finish()
    this.#places.begin()
    this.#beganMs = this.#now()
    this.#state = 'waits'
    this.#timer = setTimeout(this.finish, this.#timeoutMs)
    this.#signal = signal
    signal.addEventListener('abort', this.finish, { once: true })
  }

  #release(): void {
    const resume = this.#resume
    this.#resume = undefined
    resume?.()
  }
}

export type { Waiter }

function add<Ref>(waiters: Map<Ref, Set<Waiter>>, ref: Ref, waiter: Waiter): void {
  waiters.set(ref, (waiters.get(ref) ?? new Set()).add(waiter))
}

function remove<Ref>(waiters: Map<Ref, Set<Waiter>>, ref: Ref, waiter: Waiter): void {
  const left = waiters.get(ref)
  left?.delete(waiter)
  if (left?.size === 0) waiters.delete(ref)
}
