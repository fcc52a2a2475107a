/**
 * Syncs that wait for news, by device and by user. Bounded in all and per device; beyond the bound of a device its
 * oldest one is answered, beyond the bound in all a new one does not wait.
 */
import type { DeviceRef, Session, UserRef } from '../session.ts'

type Waiter = {
  readonly session: Session
  /** Ends the wait if there is news. */
  readonly wake: () => void
  /** Ends the wait. */
  readonly done: () => void
}

export class SyncWaiters {
  readonly #limits: { readonly waitingSyncs: number; readonly waitingSyncsPerDevice: number }
  readonly #byDevice = new Map<DeviceRef, Set<Waiter>>()
  readonly #byUser = new Map<UserRef, Set<Waiter>>()
  #count = 0
  #closed = false

  constructor(limits: { readonly waitingSyncs: number; readonly waitingSyncsPerDevice: number }) {
    this.#limits = limits
  }

  /** How many wait. */
  get count(): number {
    return this.#count
  }

  /**
   * Resolves when the device or its user is woken and `hasNews` says so, when the time is over, when `signal` aborts,
   * or at close. The caller reads anew whatever the reason.
   */
  wait(session: Session, timeoutMs: number, signal: AbortSignal, hasNews: () => boolean): Promise<void> {
    if (this.#closed || signal.aborted || this.#count >= this.#limits.waitingSyncs) return Promise.resolve()
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', done)
        this.#remove(waiter)
        resolve()
      }
      const wake = (): void => {
        if (hasNews()) done()
      }
      const waiter: Waiter = { session, wake, done }
      const timer = setTimeout(done, timeoutMs)
      signal.addEventListener('abort', done, { once: true })
      this.#add(waiter)
    })
  }

  wakeDevice(ref: DeviceRef): void {
    for (const waiter of this.#byDevice.get(ref) ?? []) waiter.wake()
  }

  wakeUser(ref: UserRef): void {
    for (const waiter of this.#byUser.get(ref) ?? []) waiter.wake()
  }

  /** Answers everyone; nobody waits from now on. */
  close(): void {
    this.#closed = true
    for (const waiters of this.#byDevice.values()) for (const waiter of waiters) waiter.done()
  }

  #add(waiter: Waiter): void {
    const { deviceRef, userRef } = waiter.session
    const ofDevice = this.#byDevice.get(deviceRef) ?? new Set()
    const [oldest] = ofDevice
    if (oldest !== undefined && ofDevice.size >= this.#limits.waitingSyncsPerDevice) oldest.done()
    this.#byDevice.set(deviceRef, ofDevice.add(waiter))
    this.#byUser.set(userRef, (this.#byUser.get(userRef) ?? new Set()).add(waiter))
    this.#count++
  }

  #remove(waiter: Waiter): void {
    const { deviceRef, userRef } = waiter.session
    this.#byDevice.get(deviceRef)?.delete(waiter)
    if (this.#byDevice.get(deviceRef)?.size === 0) this.#byDevice.delete(deviceRef)
    this.#byUser.get(userRef)?.delete(waiter)
    if (this.#byUser.get(userRef)?.size === 0) this.#byUser.delete(userRef)
    this.#count--
  }
}
