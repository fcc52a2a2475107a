/**
 * Sizes of inboxes, to keep them within their bounds (messages/inbox.ts). Counted once and then kept in step; a count
 * in doubt is forgotten and made again.
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
import type { Database } from './database.ts'

export class Inboxes {
  readonly #db: Database
  readonly #limits: InboxLimits
  readonly #loads = new LRUCache<DeviceRef, InboxLoad>({ max: 50_000 })

  constructor(db: Database, limits: InboxLimits) {
    this.#db = db
    this.#limits = limits
  }

  /** Counts a message that was just inserted, and drops the oldest where there are too many. Inside a transaction. */
  added(device: DeviceRef, length: number): void {
    const known = this.#loads.get(device)
    const load = known === undefined ? this.#count(device) : addLoads(known, { messages: 1, length })
    this.#loads.set(device, load)
    if (exceedsInbox(load, this.#limits)) this.#shrink(device)
  }

  forget(device: DeviceRef): void {
    this.#loads.delete(device)
  }

  forgetAll(): void {
    this.#loads.clear()
  }

  #shrink(device: DeviceRef): void {
    const newestFirst = this.#db.all<{ pos: Position; length: number }>(
      `select pos, length(event) as length from inbox where device_num = ? order by pos desc`,
      device,
    )
    const last = lastDropped(newestFirst, this.#limits)
    if (last !== undefined) this.#db.run(`delete from inbox where device_num = ? and pos <= ?`, device, last)
    this.forget(device)
  }

  #count(device: DeviceRef): InboxLoad {
    return (
      this.#db.one<InboxLoad>(
        `select count(*) as messages, coalesce(sum(length(event)), 0) as length from inbox where device_num = ?`,
        device,
      ) ?? EMPTY_INBOX
    )
  }
}
