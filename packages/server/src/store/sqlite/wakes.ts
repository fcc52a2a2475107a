/**
 * Who is to be woken, collected during a transaction and told to the listeners after its commit, once each.
 */
import type { DeviceRef, UserRef } from '../../session.ts'
import type { WakeListener } from '../../sync/port.ts'
import type { News } from './news.ts'

export class Wakes {
  readonly #news: News
  readonly #devices = new Set<DeviceRef>()
  readonly #users = new Set<UserRef>()
  #everyone = false
  readonly #listeners = new Set<WakeListener>()

  constructor(news: News) {
    this.#news = news
  }

  /** Adds a listener; returns what removes it. */
  subscribe(listener: WakeListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  device(ref: DeviceRef): void {
    this.#news.forgetDevice(ref)
    this.#devices.add(ref)
  }

  /** Wakes every device of a user. */
  user(ref: UserRef): void {
    this.#news.forgetUser(ref)
    this.#users.add(ref)
  }

  /** Wakes everyone who waits. */
  everyone(): void {
    this.#everyone = true
  }

  emit(): void {
    if (this.#devices.size === 0 && this.#users.size === 0 && !this.#everyone) return
    for (const listener of this.#listeners) {
      if (this.#everyone) listener.everyone()
      for (const ref of this.#devices) listener.device(ref)
      for (const ref of this.#users) listener.user(ref)
    }
    this.discard()
  }

  discard(): void {
    this.#devices.clear()
    this.#users.clear()
    this.#everyone = false
  }
}
