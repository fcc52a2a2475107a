/**
 * The newest position that a sync of a device or user can report, so that an idle sync reads no rows. A cache: every
 * write that adds a position also wakes its device or user (wakes.ts), which drops or raises the entry.
 */
import { LRUCache } from 'lru-cache'
import type { DeviceRef, Position, UserRef } from '../../session.ts'
import type { Reader } from './database.ts'

/** Devices and users in the cache: about 100 bytes each. */
const MAX_REMEMBERED = 100_000

export class LatestPositions {
  readonly #db: Reader
  readonly #messages = new LRUCache<DeviceRef, Position>({ max: MAX_REMEMBERED })
  readonly #users = new LRUCache<UserRef, Position>({ max: MAX_REMEMBERED })

  constructor(db: Reader) {
    this.#db = db
  }

  /** The position of the newest to-device message in a device's inbox; 0 when it is empty. */
  lastMessage(device: DeviceRef): Position {
    const known = this.#messages.get(device)
    if (known !== undefined) return known
    const sql = `select max(pos) as pos from inbox where device_num = ?`
    const read = this.#db.one<{ pos: Position | null }>(sql, device)?.pos ?? 0
    this.#messages.set(device, read)
    return read
  }

  /** The newest change of a device list or of account data that a sync of the user reports. */
  lastForUser(user: UserRef): Position {
    const known = this.#users.get(user)
    if (known !== undefined) return known
    const read =
      this.#db.one<{ pos: Position | null }>(
        `select max(pos) as pos from (
           select list_pos as pos from users where user_num = ?1
           union all
           select max(list_pos, pos) from tracked_users join users on user_num = target_num where observer_num = ?1
           union all
           select pos from account_data where user_num = ?1)`,
        user,
      )?.pos ?? 0
    this.#users.set(user, read)
    return read
  }

  forgetDevice(device: DeviceRef): void {
    this.#messages.delete(device)
  }

  /**
   * A change at this position concerns the user. It is the newest one, so nothing has to be read again: thousands of
   * users may track the one whose list changed. Too high a position costs a reading and loses nothing.
   */
  changedForUser(user: UserRef, position: Position): void {
    if (this.#users.has(user)) this.#users.set(user, position)
  }

  forgetUser(user: UserRef): void {
    this.#users.delete(user)
  }

  forgetAll(): void {
    this.#messages.clear()
    this.#users.clear()
  }
}
