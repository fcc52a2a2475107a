/**
 * Sizes of inboxes, to keep them within their bounds (messages/inbox.ts). A device's inbox is counted once; after that
 * only newer messages are counted. Messages confirmed through another process make the count too high, which costs one
 * exact count at the limit.
 */
import { LRUCache } from 'lru-cache'
import {
  addLoads,
  EMPTY_INBOX,
  exceedsInbox,
  EXTRA_DROPS_DIVISOR,
  type InboxLimits,
  type InboxLoad,
  MAX_EXTRA_DROPS,
} from '../../messages/inbox.ts'
import type { DeviceRef, Position } from '../../session.ts'
import type { Transaction } from './database.ts'
import type { LastStep } from './locks.ts'

type Counted = InboxLoad & { readonly upTo: Position }

const NOTHING: Counted = { ...EMPTY_INBOX, upTo: 0 }

export class Inboxes {
  readonly #limits: InboxLimits
  readonly #counted = new LRUCache<DeviceRef, Counted>({ max: 50_000 })

  constructor(limits: InboxLimits) {
    this.#limits = limits
  }

  /** The devices whose inboxes exceed their bounds when these loads are added to what is committed. */
  async over(tx: Transaction, loads: ReadonlyMap<DeviceRef, InboxLoad>): Promise<DeviceRef[]> {
    const devices = [...loads.keys()]
    const rows = await tx.all<{ device_num: DeviceRef } & Counted>(
      `select device_num, messages, length, pos as "upTo"
       from stream cross join unnest($1::bigint[], $2::bigint[]) as receiver (device_num, since)
       cross join lateral (
         select count(*) as messages, coalesce(sum(length), 0)::bigint as length
         from inbox where inbox.device_num = receiver.device_num and inbox.pos > since) as newer`,
      devices,
      devices.map((device) => this.#counted.get(device)?.upTo ?? 0),
    )
    for (const { device_num: device, messages, length, upTo } of rows) {
      const known = this.#counted.get(device) ?? NOTHING
      // Two requests at once may have counted from the same position.
      if (known.upTo >= upTo) continue
      this.#counted.set(device, { ...addLoads(known, { messages, length }), upTo })
    }
    return devices.filter((device) => {
      const load = addLoads(this.#counted.get(device) ?? NOTHING, loads.get(device) ?? EMPTY_INBOX)
      return exceedsInbox(load, this.#limits)
    })
  }

  /**
   * Drops the oldest messages of an inbox that exceeds its bounds. The statement is `lastDropped` of messages/inbox.ts:
   * otherwise up to 50 000 rows would be read while every other write waits for the stream.
   */
  async shrink(last: LastStep, device: DeviceRef): Promise<void> {
    await last.run(
      `with sizes as (
         select pos, row_number() over newest as messages, sum(length) over newest as length
         from inbox where device_num = $1 window newest as (order by pos desc)),
       first as (select pos, messages from sizes where messages > $2 or length > $3 order by pos desc limit 1),
       last as (
         select coalesce(
           (select pos from inbox where device_num = $1 and pos > first.pos order by pos limit 1
            offset least($4::bigint, first.messages / $5::bigint)), first.pos) as pos
         from first)
       delete from inbox using last where device_num = $1 and inbox.pos <= last.pos`,
      device,
      this.#limits.inboxMessages,
      this.#limits.inboxLength,
      MAX_EXTRA_DROPS,
      EXTRA_DROPS_DIVISOR,
    )
    this.forget(device)
  }

  forget(device: DeviceRef): void {
    this.#counted.delete(device)
  }

  /** The database may have been replaced by an older copy (fence.ts). */
  forgetAll(): void {
    this.#counted.clear()
  }
}
