/**
 * When and from where devices were last seen. Requests only note it; it is written for many devices at once, now and
 * then, and lost at worst: a commit for every first request of a device would cost more than the request.
 */
import { LRUCache } from 'lru-cache'
import type { DeviceRef, Session, TokenHash } from '../../session.ts'
import type { Queries } from './database.ts'

/** How often at most the last use of a session is written. */
const INTERVAL_MS = 10 * 60 * 1000
const MAX_SESSIONS = 50_000
const WRITE_AFTER_MS = 5_000
const WRITE_AT = 5_000

type Seen = { readonly ts: number; readonly ip: string }

export class LastSeen {
  readonly #db: Queries
  readonly #notedTs = new LRUCache<TokenHash, number>({ max: MAX_SESSIONS })
  #unwritten = new Map<DeviceRef, Seen>()
  /** On their way to the database; nothing else is written until they are there. */
  #writing: ReadonlyMap<DeviceRef, Seen> = new Map()
  #timer: NodeJS.Timeout | undefined

  constructor(db: Queries) {
    this.#db = db
  }

  note({ tokenHash, deviceRef }: Session, ip: string, now: number): void {
    const notedTs = this.#notedTs.get(tokenHash)
    if (notedTs !== undefined && Math.abs(now - notedTs) < INTERVAL_MS) return
    if (this.#unwritten.size >= WRITE_AT && !this.#unwritten.has(deviceRef)) return
    this.#notedTs.set(tokenHash, now)
    this.#unwritten.set(deviceRef, { ts: now, ip })
    this.#timer ??= setTimeout(() => void this.write(), WRITE_AFTER_MS).unref()
  }

  /** Writes what was noted. Devices whose rows are locked just now are passed over: they are seen again. */
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
      // Lost: the devices are noted anew in ten minutes.
    } finally {
      this.#writing = new Map()
      if (this.#unwritten.size > 0)
        this.#timer ??= setTimeout(() => void this.write(), WRITE_AFTER_MS).unref()
    }
  }

  /** A device as it was last seen, if that is not written yet. */
  unwritten(device: DeviceRef): Seen | undefined {
    return this.#unwritten.get(device) ?? this.#writing.get(device)
  }
}
