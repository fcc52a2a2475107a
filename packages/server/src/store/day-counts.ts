/** The columns of the daily budgets (pool/daily-budget.ts), the same in every store. */
import type { DayCounts } from '../pool/day-count.ts'

export type DeviceCountsRow = {
  readonly day_start_ts: number
  readonly day_stored: number
  readonly heals_day_start_ts: number
  readonly heals_used: number
}

export type UserCountsRow = {
  readonly keys_day_start_ts: number
  readonly keys_used: number
  readonly bytes_day_start_ts: number
  readonly bytes_used: number
}

export const DEVICE_COUNTS = 'day_start_ts, day_stored, heals_day_start_ts, heals_used'
export const USER_COUNTS = 'keys_day_start_ts, keys_used, bytes_day_start_ts, bytes_used'

export function toDayCounts(device: DeviceCountsRow, user: UserCountsRow): DayCounts {
  return {
    device_keys: { start: device.day_start_ts, used: device.day_stored },
    heals: { start: device.heals_day_start_ts, used: device.heals_used },
    user_keys: { start: user.keys_day_start_ts, used: user.keys_used },
    user_bytes: { start: user.bytes_day_start_ts, used: user.bytes_used },
  }
}

/** The values of `DEVICE_COUNTS`, in its order. */
export function deviceCounts({ device_keys: keys, heals }: DayCounts): readonly number[] {
  return [keys.start, keys.used, heals.start, heals.used]
}

/** The values of `USER_COUNTS`, in its order. */
export function userCounts({ user_keys: keys, user_bytes: bytes }: DayCounts): readonly number[] {
  return [keys.start, keys.used, bytes.start, bytes.used]
}
