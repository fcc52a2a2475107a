/** Limits of the rows that one user or device may create, from every folder of the domain. */
import type { DeviceLimits } from '../devices/device-limit.ts'
import type { InboxLimits } from '../messages/inbox.ts'
import type { AccountDataLimits } from '../sync/account-data.ts'
import type { FilterLimits } from '../sync/filters.ts'

export type RowLimits = InboxLimits & FilterLimits & AccountDataLimits & DeviceLimits
