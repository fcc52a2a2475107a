/**
 * When and from where devices were last seen. Requests only note it; it is written for many devices at once, now and
 * then, and lost at worst: a commit for every first request of a device would cost more than the request.
 */
import { LRUCache } from 'lru-cache'
import type { DeviceRef, Session, TokenHash } from '../../session.ts'
import type { CommitQueue } from './commit-queue.ts'
import type { Database } from './database.ts'

/** How often at most the last use of a session is written. */
const INTERVAL_MS = 10 * 60 * 1000
const MAX_SESSIONS = 50_000
const WRITE_AFTER_MS = 5_000
const WRITE_AT = 5_000

export class LastSeen {
  readonly #db: Database
  readonly #queue: CommitQueue
  readonly #notedTs = new LRUCache<TokenHash, number>({ max: MAX_SESSIONS })
  #unwritten = new Map<DeviceRef, { readonly ts: number; readonly ip: string }>()
  #timer: NodeJS.Timeout | undefined

  constructor(db: Database, queue: CommitQueue) {
    this.#db = db
    this.#queue = queue
  }

  note({ tokenHash, deviceRef }: Session, ip: string, now: number): void {
    const notedTs = this.#notedTs.get(tokenHash)
    if (notedTs !== undefined && Math.abs(now - notedTs) < INTERVAL_MS) return
    this.#notedTs.set(tokenHash, now)
    this.#unwritten.set(deviceRef, { ts: now, ip })
    if (this.#unwritten.size >= WRITE_AT) this.write()
    else this.#timer ??= setTimeout(() => this.write(), WRITE_AFTER_MS).unref()
  }

  /** Writes what was noted, with the next commit. */
  write(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#unwritten.size === 0) return
    const noted = this.#unwritten
    this.#unwritten = new Map()
    this.#queue
      .plain(() => {
        for (const [device, { ts, ip }] of noted) {
          this.#db.run(
            `update devices set last_seen_ts = ?, last_seen_ip = ? where device_num = ? and removed_ts is null`,
            ts,
            ip,
            device,
          )
        }
      })
      .catch(() => {})
  }

  /** A device as it was last seen, if that is not written yet. */
  unwritten(device: DeviceRef): { readonly ts: number; readonly ip: string } | undefined {
    return this.#unwritten.get(device)
  }
}
