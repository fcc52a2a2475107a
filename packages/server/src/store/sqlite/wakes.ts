/**
 * Who is to be woken, collected during a transaction and told to the listeners after its commit, once each.
 */
import type { DeviceRef, UserRef } from '../../session.ts'

export type WakeListener = {
  readonly device: (ref: DeviceRef) => void
  readonly user: (ref: UserRef) => void
}

export class Wakes {
  readonly #devices = new Set<DeviceRef>()
  readonly #users = new Set<UserRef>()
  readonly #listeners = new Set<WakeListener>()

  /** Adds a listener; returns what removes it. */
  subscribe(listener: WakeListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  device(ref: DeviceRef): void {
    this.#devices.add(ref)
  }

  /** Wakes every device of a user. */
  user(ref: UserRef): void {
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
