/**
 * Writes the time and address at which devices were last seen (devices/last-seen.ts), in batches with the next commit.
 */
import { type Seen, SeenSessions, WRITE_SEEN_AFTER_MS, WRITE_SEEN_AT } from '../../devices/last-seen.ts'
import type { DeviceRef, Session } from '../../session.ts'
import type { CommitQueue } from './commit-queue.ts'

export class LastSeen {
  readonly #queue: CommitQueue
  readonly #sessions = new SeenSessions()
  #unwritten = new Map<DeviceRef, Seen>()
  /** Devices whose write is not committed yet. */
  readonly #writing = new Set<ReadonlyMap<DeviceRef, Seen>>()
  #timer: NodeJS.Timeout | undefined

  constructor(queue: CommitQueue) {
    this.#queue = queue
  }

  note({ tokenHash, deviceRef }: Session, ip: string, now: number): void {
    if (!this.#sessions.isDue(tokenHash, now)) return
    this.#sessions.noted(tokenHash, now)
    this.#unwritten.set(deviceRef, { ts: now, ip })
    if (this.#unwritten.size >= WRITE_SEEN_AT) this.write()
    else this.#timer ??= setTimeout(() => this.write(), WRITE_SEEN_AFTER_MS).unref()
  }

  /** Writes the noted devices with the next commit. */
  write(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#unwritten.size === 0) return
    const noted = this.#unwritten
    this.#unwritten = new Map()
    this.#writing.add(noted)
    this.#queue
      .plain((tx) => {
        for (const [device, { ts, ip }] of noted) {
          tx.run(
            `update devices set last_seen_ts = ?, last_seen_ip = ? where device_num = ? and removed_ts is null`,
            ts,
            ip,
            device,
          )
        }
      })
      .catch(() => {}) // Lost: the devices are noted again after the interval.
      .finally(() => this.#writing.delete(noted))
  }

  /** When and where a device was last seen, unless that is written already. */
  unwritten(device: DeviceRef): Seen | undefined {
    const noted = this.#unwritten.get(device)
    return noted ?? [...this.#writing].findLast((other) => other.has(device))?.get(device)
  }
}
