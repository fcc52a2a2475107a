/**
 * Devices and users that a transaction has news for. They are collected while it runs; the listeners are notified after
 * its commit, once per device and user.
 */
import type { DeviceRef, Position, UserRef } from '../../session.ts'
import type { WakeListener } from '../../sync/port.ts'
import type { Transaction } from './database.ts'
import type { LatestPositions } from './latest-positions.ts'

export class Wakes {
  readonly #latestPositions: LatestPositions
  readonly #devices = new Set<DeviceRef>()
  readonly #users = new Set<UserRef>()
  #everyone = false
  readonly #listeners = new Set<WakeListener>()

  constructor(latestPositions: LatestPositions) {
    this.#latestPositions = latestPositions
  }

  /** Adds a listener; returns the function that removes it. */
  subscribe(listener: WakeListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  device(_tx: Transaction, ref: DeviceRef): void {
    this.#latestPositions.forgetDevice(ref)
    this.#devices.add(ref)
  }

  /** Wakes every device of a user, for a change at a position. */
  user(_tx: Transaction, ref: UserRef, position: Position): void {
    this.#latestPositions.changedForUser(ref, position)
    this.#users.add(ref)
  }

  /** Wakes every waiting sync. */
  everyone(_tx: Transaction): void {
    this.#everyone = true
  }

  /** Notifies the listeners after the commit. */
  emit(): void {
    if (this.#devices.size === 0 && this.#users.size === 0 && !this.#everyone) return
    for (const listener of this.#listeners) {
      if (this.#everyone) listener.everyone()
      for (const ref of this.#devices) listener.device(ref)
      if (this.#users.size > 0) listener.users([...this.#users])
    }
    this.discard()
  }

  discard(): void {
    this.#devices.clear()
    this.#users.clear()
    this.#everyone = false
  }
}
