/**
 * How many messages wait per device, so that an abandoned device cannot fill the disk: beyond the limit the oldest go.
 * Counted once and then kept in step; whatever is in doubt is forgotten and counted anew.
 */
import { LRUCache } from 'lru-cache'
import type { DeviceRef } from '../../session.ts'
import type { Database } from './database.ts'

export class Inboxes {
  readonly #db: Database
  readonly #counts = new LRUCache<DeviceRef, number>({ max: 50_000 })

  constructor(db: Database) {
    this.#db = db
  }

  /** Counts a message that was just inserted; returns how many the device has now. */
  added(device: DeviceRef): number {
    const known = this.#counts.get(device)
    const count = known === undefined ? this.#count(device) : known + 1
    this.#counts.set(device, count)
    return count
  }

  dropOldest(device: DeviceRef, howMany: number): void {
    this.#db.run(
      `delete from inbox where device_num = ?1 and pos in
         (select pos from inbox where device_num = ?1 order by pos limit ?2)`,
      device,
      howMany,
    )
    this.forget(device)
  }

  forget(device: DeviceRef): void {
    this.#counts.delete(device)
  }

  forgetAll(): void {
    this.#counts.clear()
  }

  #count(device: DeviceRef): number {
    return this.#db.one<{ n: number }>(`select count(*) as n from inbox where device_num = ?`, device)?.n ?? 0
  }
}
