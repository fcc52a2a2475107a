/** One reading for `/sync`. Synchronous, so no commit falls into it: counts, digest and messages belong together. */
import type { DeviceRef, Position, Session, UserRef } from '../../session.ts'
import type { SyncReading } from '../../sync/port.ts'
import type { Core } from './core.ts'
import { poolStatus } from './pool-status.ts'
import { changedSince } from './tracked-users.ts'

/** Below every position: everything is newer. */
const BEGINNING = -1

export function readSync(
  core: Core,
  { deviceRef, userRef }: Session,
  since: Position | undefined,
  options: { readonly toDeviceLimit: number; readonly everyoneChanged: boolean },
): SyncReading {
  const from = since ?? BEGINNING
  const { last } = core.positions
  const messages =
    core.news.lastMessage(deviceRef) > from ? messagesSince(core, deviceRef, from, options.toDeviceLimit) : []
  const userHasNews = core.news.lastForUser(userRef) > from || options.everyoneChanged
  // When there may be more, the answer tells everything only up to its last message.
  const full = messages.length === options.toDeviceLimit
  const listsSince = options.everyoneChanged ? BEGINNING : since
  const device = core.keys.byRef(deviceRef)
  return {
    position: (full ? messages.at(-1)?.pos : undefined) ?? last,
    toDevice: messages.map((message) => message.event),
    changedUsers:
      listsSince === undefined || !userHasNews ? [] : changedSince(core, userRef, listsSince, last),
    accountData: userHasNews ? accountDataSince(core, userRef, from) : [],
    signalled: device !== undefined && device.signalPos > from,
    pools: poolStatus(core, deviceRef),
  }
}

function messagesSince(
  core: Core,
  device: DeviceRef,
  from: Position,
  limit: number,
): { readonly pos: Position; readonly event: string }[] {
  return core.db.all(
    `select pos, event from inbox where device_num = ? and pos > ? order by pos limit ?`,
    device,
    from,
    limit,
  )
}

function accountDataSince(core: Core, user: UserRef, from: Position): SyncReading['accountData'] {
  return core.db.all<{ type: string; content: string }>(
    `select type, content from account_data where user_num = ? and pos > ? order by pos`,
    user,
    from,
  )
}
