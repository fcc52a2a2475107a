/** A user as the administration commands read it (admin/port.ts); the SQL is the same in every store. */
import type { UserId } from '@latchkey/protocol'
import type { UserEntry } from '../admin/port.ts'
import type { UserRef } from '../session.ts'

export type UserRow = {
  readonly user_num: UserRef
  readonly user_id: UserId
  readonly created_ts: number
  readonly locked_ts: number | null
  readonly deactivated_ts: number | null
  readonly devices: number
}

export const USER_COLUMNS = `user_num, user_id, created_ts, locked_ts, deactivated_ts,
  (select count(*) from devices where devices.user_num = users.user_num and removed_ts is null) as devices`

export function toUser(row: UserRow): UserEntry {
  return {
    userRef: row.user_num,
    userId: row.user_id,
    createdTs: row.created_ts,
    lockedTs: row.locked_ts ?? undefined,
    deactivatedTs: row.deactivated_ts ?? undefined,
    devices: row.devices,
  }
}
