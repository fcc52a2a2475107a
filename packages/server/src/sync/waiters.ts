/**
 * Syncs that wait for news, by device and by user. A registered sync is woken from that moment on, waiting or not.
 * wait-places.ts bounds those that wait.
 */
import type { DeviceRef, Session, UserRef } from '../session.ts'
import { type WaitingSync, type WaitLimits, WaitPlaces } from './wait-places.ts'

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

  wakeUser(ref: UserRef): void {
    for (const waiter of this.#byUser.get(ref) ?? []) waiter.wake()
  }

  /**
   * Wakes all syncs, spread over a while, so that not all clients come back at once.
   *
   * @param spreadMs the longest delay of a sync
   */
  wakeEveryone(spreadMs: number): void {
    for (const waiters of this.#byDevice.values()) {
      for (const waiter of waiters) waiter.wakeWithin(spreadMs)
    }
  }

  /** Answers all syncs. None waits from now on. */
  close(): void {
    this.#closed = true
    for (const waiters of this.#byDevice.values()) for (const waiter of waiters) waiter.finish()
  }
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
   * Resolves at the next wake-up, or at once if there was one since the last or the wait has ended.
   *
   * @throws {MatrixError} 429 or 503 when there is no place to wait (wait-places.ts)
   */
  next(): Promise<void> {
    if (this.#state === 'registered' && !this.#woken) this.#begin()
    if (this.#woken || this.over) {
      this.#woken = false
      return Promise.resolve()
    }
    return new Promise((resolve) => (this.#resume = resolve))
  }

  wake(): void {
    if (this.#resume === undefined) this.#woken = true
    else this.#release()
  }

  /** Wakes it at a random moment, at once if it does not wait yet. */
  wakeWithin(ms: number): void {
    if (!this.waits || ms === 0) return this.wake()
    setTimeout(() => this.wake(), Math.random() * ms).unref()
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
