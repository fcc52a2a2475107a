/**
 * Syncs that wait for news, by device and by user. A registered sync is woken from that moment on, waiting or not. The
 * number of waiting syncs is bounded in total and per device: above the bound of a device its oldest one is answered,
 * above the total a new one does not wait.
 */
import type { DeviceRef, Session, UserRef } from '../session.ts'

type Limits = { readonly waitingSyncs: number; readonly waitingSyncsPerDevice: number }

export class SyncWaiters {
  readonly #limits: Limits
  readonly #byDevice = new Map<DeviceRef, Set<Waiter>>()
  readonly #byUser = new Map<UserRef, Set<Waiter>>()
  #count = 0
  #closed = false

  constructor(limits: Limits) {
    this.#limits = limits
  }

  /** Waiting syncs. */
  get count(): number {
    return this.#count
  }

  /**
   * Wakes a sync from now on, until it is disposed of. Its wait ends `timeoutMs` after it began, when the client
   * disconnects, or at close. In each case the caller reads once more.
   */
  register(session: Session, timeoutMs: number, clientGone: () => AbortSignal): Waiter {
    const { deviceRef, userRef } = session
    const waiter: Waiter = new Waiter(timeoutMs, clientGone, {
      begin: () => this.#begin(deviceRef),
      end: () => this.#count--,
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

  /** Takes a place among the waiting syncs. False when there is none. */
  #begin(device: DeviceRef): boolean {
    if (this.#count >= this.#limits.waitingSyncs) return false
    const waiting = [...(this.#byDevice.get(device) ?? [])].filter((waiter) => waiter.waits)
    if (waiting.length >= this.#limits.waitingSyncsPerDevice) waiting[0]?.finish()
    this.#count++
    return true
  }
}

type Places = { readonly begin: () => boolean; readonly end: () => void; readonly gone: () => void }

/** One sync. A wake-up during a reading is kept for the next wait, so that none is lost. */
class Waiter implements Disposable {
  readonly #timeoutMs: number
  readonly #clientGone: () => AbortSignal
  readonly #places: Places
  #state: 'registered' | 'waits' | 'over' = 'registered'
  #woken = false
  #resume: (() => void) | undefined
  #timer: NodeJS.Timeout | undefined
  #signal: AbortSignal | undefined

  constructor(timeoutMs: number, clientGone: () => AbortSignal, places: Places) {
    this.#timeoutMs = timeoutMs
    this.#clientGone = clientGone
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

  /** Resolves at the next wake-up, or at once if there was one since the last or the wait has ended. */
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
    if (signal.aborted || !this.#places.begin()) return this.finish()
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
