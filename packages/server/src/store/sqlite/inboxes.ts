/**
 * Sizes of inboxes, which keep them within their bounds (messages/inbox.ts). Each is counted once and then updated;
 * after a rollback it is dropped and counted again.
 */
import { LRUCache } from 'lru-cache'
import {
  addLoads,
  EMPTY_INBOX,
  exceedsInbox,
  type InboxLimits,
  type InboxLoad,
  lastDropped,
} from '../../messages/inbox.ts'
import type { DeviceRef, Position } from '../../session.ts'
import type { Transaction } from './database.ts'

export class Inboxes {
  readonly #limits: InboxLimits
  readonly #loads = new LRUCache<DeviceRef, InboxLoad>({ max: 50_000 })

  constructor(limits: InboxLimits) {
    this.#limits = limits
  }

  /** Counts a message that was just inserted, and deletes the oldest ones of an inbox over its bound. */
  added(tx: Transaction, device: DeviceRef, length: number): void {
    const known = this.#loads.get(device)
    const load = known === undefined ? this.#count(tx, device) : addLoads(known, { messages: 1, length })
    this.#loads.set(device, load)
    if (exceedsInbox(load, this.#limits)) this.#shrink(tx, device)
  }

  forget(device: DeviceRef): void {
    this.#loads.delete(device)
  }

  forgetAll(): void {
    this.#loads.clear()
  }

  #shrink(tx: Transaction, device: DeviceRef): void {
    const newestFirst = tx.all<{ pos: Position; length: number }>(
      `select pos, length(event) as length from inbox where device_num = ? order by pos desc`,
      device,
    )
    const last = lastDropped(newestFirst, this.#limits)
    if (last !== undefined) tx.run(`delete from inbox where device_num = ? and pos <= ?`, device, last)
    this.forget(device)
  }

  #count(tx: Transaction, device: DeviceRef): InboxLoad {
    return (
      tx.one<InboxLoad>(
        `select count(*) as messages, coalesce(sum(length(event)), 0) as length from inbox where device_num = ?`,
        device,
      ) ?? EMPTY_INBOX
    )
  }
}
