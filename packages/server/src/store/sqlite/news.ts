/**
 * Where the newest thing stands that a device or a user can hear of, so that an idle sync reads nothing at all.
 * A cache: whoever makes news wakes the device or user in the same transaction (wakes.ts), which forgets the entry.
 */
import { LRUCache } from 'lru-cache'
import type { DeviceRef, Position, UserRef } from '../../session.ts'
import type { Database } from './database.ts'

/** Devices and users remembered: about 100 bytes each. */
const MAX_REMEMBERED = 100_000

export class News {
  readonly #db: Database
  readonly #messages = new LRUCache<DeviceRef, Position>({ max: MAX_REMEMBERED })
  readonly #users = new LRUCache<UserRef, Position>({ max: MAX_REMEMBERED })

  constructor(db: Database) {
    this.#db = db
  }

  /** The newest to-device message that waits for a device; 0 when none does. */
  lastMessage(device: DeviceRef): Position {
    const known = this.#messages.get(device)
    if (known !== undefined) return known
    const sql = `select max(pos) as pos from inbox where device_num = ?`
    const read = this.#db.one<{ pos: Position | null }>(sql, device)?.pos ?? 0
    this.#messages.set(device, read)
    return read
  }

  /** The newest change of a device list or of account data that a user can hear of. */
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

  forgetUser(user: UserRef): void {
    this.#users.delete(user)
  }

  forgetAll(): void {
    this.#messages.clear()
    this.#users.clear()
  }
}
