/** The use of the daily budgets (daily-budget.ts), as a store keeps it. */

/** One-time keys, fallback keys and changes of identity are `keys`; their names and texts are `bytes`. */
export type Budget = 'device_keys' | 'user_keys' | 'user_bytes' | 'heals'

/** The amount used since the day began. `start` is in milliseconds since 1970. */
export type DayCount = { readonly start: number; readonly used: number }

export type DayCounts = Readonly<Record<Budget, DayCount>>
