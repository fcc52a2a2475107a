/**
 * Who is to be woken, collected during a transaction and told to the listeners after its commit, once each.
 */
import type { DeviceRef, UserRef } from '../../session.ts'
import type { News } from './news.ts'

export type WakeListener = {
  readonly device: (ref: DeviceRef) => void
  readonly user: (ref: UserRef) => void
}

export class Wakes {
  readonly #news: News
  readonly #devices = new Set<DeviceRef>()
  readonly #users = new Set<UserRef>()
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

  emit(): void {
    if (this.#devices.size === 0 && this.#users.size === 0) return
    for (const listener of this.#listeners) {
      for (const ref of this.#devices) listener.device(ref)
      for (const ref of this.#users) listener.user(ref)
    }
    this.discard()
  }

  discard(): void {
    this.#devices.clear()
    this.#users.clear()
  }
}
