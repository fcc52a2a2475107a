/** One reading for `/sync`. Synchronous, so no commit falls into it: counts, digest and messages belong together. */
import { unknownToken } from '../../matrix-error.ts'
import type { DeviceRef, Position, Session, UserRef } from '../../session.ts'
import type { SyncQuery, SyncReading } from '../../sync/port.ts'
import { continuesFrom, type SyncToken } from '../../sync/token.ts'
import type { Core } from './core.ts'
import { noteTold, offerCounts, poolStatus } from './pool-status.ts'
import { confirmMessages } from './send-messages.ts'
import { findSession } from './sessions.ts'
import { changedSince } from './tracked-users.ts'

/** Below every position: everything is newer. */
const BEGINNING = -1

/** @throws {MatrixError} 401 when the session has ended. */
export function readSync(core: Core, session: Session, query: SyncQuery): SyncReading {
  if (findSession(core, session.tokenHash) === undefined) throw unknownToken()
  const { deviceRef } = session
  const since = continuesFrom(query.token, endOfStream(core))
  if (query.confirms && since !== undefined) {
    noteTold(core, deviceRef, since)
    confirmMessages(core, session, since)
  }
  const reading = readSince(core, session, since, query)
  // A token that stays where it was proves nothing when it comes again: the answer may have been lost.
  if (reading.position !== since && query.isAnswer(reading)) offerCounts(core, deviceRef, reading.position)
  return reading
}

export function endOfStream({ keys, positions }: Core): SyncToken {
  return { epoch: keys.epoch, position: positions.last }
}

function readSince(
  core: Core,
  { deviceRef, userRef }: Session,
  since: Position | undefined,
  { toDeviceLimit, everyoneFromBeginning }: SyncQuery,
): SyncReading {
  const from = since ?? BEGINNING
  const { epoch, position: last } = endOfStream(core)
  const messages =
    core.news.lastMessage(deviceRef) > from ? messagesSince(core, deviceRef, from, toDeviceLimit) : []
  const userHasNews = core.news.lastForUser(userRef) > from
  // When there may be more, the answer tells everything only up to its last message.
  const full = messages.length === toDeviceLimit
  const listsSince = since ?? (everyoneFromBeginning ? BEGINNING : undefined)
  const device = core.keys.byRef(deviceRef)
  return {
    epoch,
    since,
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
