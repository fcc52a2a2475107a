/**
 * How much waits per device, so that an abandoned device cannot fill the disk: beyond a limit the oldest messages go.
 * A device's inbox is counted once, and from then on only what came after that; what the device confirmed meanwhile
 * through another process makes the count too high, which costs an exact count when it reaches the limit.
 */
import { LRUCache } from 'lru-cache'
import type { DeviceRef, Position } from '../../session.ts'
import type { InboxLimits } from '../row-limits.ts'
import type { Queries } from './database.ts'

/** `length` in characters of JSON text. */
export type Load = { readonly messages: number; readonly length: number }
type Counted = Load & { readonly upTo: Position }

/** When a limit is met this much more goes, so that not every further message pays for it. */
const DROP_AT_ONCE = 100
const NOTHING: Counted = { messages: 0, length: 0, upTo: 0 }

export class Inboxes {
  readonly #limits: InboxLimits
  readonly #counted = new LRUCache<DeviceRef, Counted>({ max: 50_000 })

  constructor(limits: InboxLimits) {
    this.#limits = limits
  }

  /** Which of the devices have more than they may when these loads have come on top of what is committed. */
  async over(db: Queries, loads: ReadonlyMap<DeviceRef, Load>): Promise<DeviceRef[]> {
    const devices = [...loads.keys()]
    const rows = await db.all<{ device_num: DeviceRef } & Counted>(
      `select device_num, messages, length, pos as "upTo"
       from stream cross join unnest($1::bigint[], $2::bigint[]) as asked (device_num, since)
       cross join lateral (
         select count(*) as messages, coalesce(sum(length), 0)::bigint as length
         from inbox where inbox.device_num = asked.device_num and inbox.pos > since) as newer`,
      devices,
      devices.map((device) => this.#counted.get(device)?.upTo ?? 0),
    )
    for (const { device_num: device, messages, length, upTo } of rows) {
      const known = this.#counted.get(device) ?? NOTHING
      // Two requests at once may have asked from the same place: what the other counted is counted.
      if (known.upTo >= upTo) continue
      this.#counted.set(device, {
        messages: known.messages + messages,
        length: known.length + length,
        upTo,
      })
    }
    return devices.filter((device) => this.#isOver(device, loads.get(device) ?? NOTHING))
  }

  /** Drops the oldest of a device's messages when there are too many. Under the lock of the stream, as who inserts them. */
  async shrink(tx: Queries, device: DeviceRef): Promise<void> {
    await tx.run(
      `with sizes as (
         select pos, row_number() over newest as messages, sum(length) over newest as length
         from inbox where device_num = $1 window newest as (order by pos desc)),
       first as (select pos, messages from sizes where messages > $2 or length > $3 order by pos desc limit 1),
       last as (
         select coalesce(
           (select pos from inbox where device_num = $1 and pos > first.pos order by pos limit 1
            offset least($4, first.messages / 10)), first.pos) as pos
         from first)
       delete from inbox using last where device_num = $1 and inbox.pos <= last.pos`,
      device,
      this.#limits.inboxMessages,
      this.#limits.inboxLength,
      DROP_AT_ONCE,
    )
    this.forget(device)
  }

  forget(device: DeviceRef): void {
    this.#counted.delete(device)
  }

  /** The database may be another than what is remembered of it (fence.ts). */
  forgetAll(): void {
    this.#counted.clear()
  }

  #isOver(device: DeviceRef, added: Load): boolean {
    const known = this.#counted.get(device) ?? NOTHING
    return (
      known.messages + added.messages > this.#limits.inboxMessages ||
      known.length + added.length > this.#limits.inboxLength
    )
  }
}
