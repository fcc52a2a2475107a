/** Writes when and from where devices were last seen (devices/last-seen.ts), many in one statement. */
import { type Seen, SeenSessions, WRITE_SEEN_AFTER_MS, WRITE_SEEN_AT } from '../../devices/last-seen.ts'
import type { DeviceRef, Session } from '../../session.ts'
import type { Queries } from './database.ts'

export class LastSeen {
  readonly #db: Queries
  readonly #sessions = new SeenSessions()
  #unwritten = new Map<DeviceRef, Seen>()
  /** Devices of the write in progress. The next write waits for its end. */
  #writing: ReadonlyMap<DeviceRef, Seen> = new Map()
  #timer: NodeJS.Timeout | undefined

  constructor(db: Queries) {
    this.#db = db
  }

  note({ tokenHash, deviceRef }: Session, ip: string, now: number): void {
    if (!this.#sessions.isDue(tokenHash, now)) return
    if (this.#unwritten.size >= WRITE_SEEN_AT && !this.#unwritten.has(deviceRef)) return
    this.#sessions.noted(tokenHash, now)
    this.#unwritten.set(deviceRef, { ts: now, ip })
    this.#timer ??= setTimeout(() => void this.write(), WRITE_SEEN_AFTER_MS).unref()
  }

  /** Writes what was noted. Devices whose rows are locked are skipped: they are seen again. */
  async write(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#unwritten.size === 0 || this.#writing.size > 0) return
    this.#writing = this.#unwritten
    this.#unwritten = new Map()
    const seen = [...this.#writing]
    try {
      await this.#db.run(
        `with free as (
           select device_num from devices where device_num = any($1::bigint[]) and removed_ts is null
           for no key update skip locked)
         update devices set last_seen_ts = noted.ts, last_seen_ip = noted.ip
         from free join unnest($1::bigint[], $2::bigint[], $3::text[]) as noted (device_num, ts, ip)
           using (device_num)
         where devices.device_num = free.device_num`,
        seen.map(([device]) => device),
        seen.map(([, { ts }]) => ts),
        seen.map(([, { ip }]) => ip),
      )
    } catch {
      // The times are lost: the devices are noted again after the interval.
    } finally {
      this.#writing = new Map()
      if (this.#unwritten.size > 0)
        this.#timer ??= setTimeout(() => void this.write(), WRITE_SEEN_AFTER_MS).unref()
    }
  }

  /**
   * Devices as they were last seen, if that is not written yet. Call it before rows are read: a write that ends in
   * between may be missing in both the rows and a later call.
   */
  unwritten(): (device: DeviceRef) => Seen | undefined {
    const [unwritten, writing] = [this.#unwritten, this.#writing]
    return (device) => unwritten.get(device) ?? writing.get(device)
  }
}
