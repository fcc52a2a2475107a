/**
 * How much waits per device, so that an abandoned device cannot fill the disk: beyond a limit the oldest messages go.
 * Counted once and then kept in step; whatever is in doubt is forgotten and counted anew.
 */
import { LRUCache } from 'lru-cache'
import type { DeviceRef, Position } from '../../session.ts'
import type { InboxLimits } from '../row-limits.ts'
import type { Database } from './database.ts'

type Waiting = { readonly messages: number; readonly length: number }

/** When a limit is met this much more goes, so that not every further message pays for it. */
const DROP_AT_ONCE = 100

export class Inboxes {
  readonly #db: Database
  readonly #limits: InboxLimits
  readonly #waiting = new LRUCache<DeviceRef, Waiting>({ max: 50_000 })

  constructor(db: Database, limits: InboxLimits) {
    this.#db = db
    this.#limits = limits
  }

  /** Counts a message that was just inserted, and drops the oldest where there are too many. Inside a transaction. */
  added(device: DeviceRef, length: number): void {
    const known = this.#waiting.get(device)
    const now =
      known === undefined
        ? this.#count(device)
        : { messages: known.messages + 1, length: known.length + length }
    this.#waiting.set(device, now)
    if (now.messages > this.#limits.inboxMessages || now.length > this.#limits.inboxLength)
      this.#shrink(device)
  }

  forget(device: DeviceRef): void {
    this.#waiting.delete(device)
  }

  forgetAll(): void {
    this.#waiting.clear()
  }

  #shrink(device: DeviceRef): void {
    const sizes = this.#db.all<{ pos: Position; length: number }>(
      `select pos, length(event) as length from inbox where device_num = ? order by pos desc`,
      device,
    )
    let messages = 0
    let length = 0
    const first = sizes.find((row) => {
      messages++
      length += row.length
      return messages > this.#limits.inboxMessages || length > this.#limits.inboxLength
    })
    if (first !== undefined) {
      this.#db.run(
        `delete from inbox where device_num = ?1 and pos <=
           coalesce((select pos from inbox where device_num = ?1 and pos > ?2 order by pos limit 1 offset ?3), ?2)`,
        device,
        first.pos,
        Math.min(DROP_AT_ONCE, Math.floor(messages / 10)),
      )
    }
    this.forget(device)
  }

  #count(device: DeviceRef): Waiting {
    return (
      this.#db.one<Waiting>(
        `select count(*) as messages, coalesce(sum(length(event)), 0) as length from inbox where device_num = ?`,
        device,
      ) ?? { messages: 0, length: 0 }
    )
  }
}
