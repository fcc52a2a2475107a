/**
 * One reading for `/sync`. Itself synchronous, so no commit falls into it: counts, digest and messages belong together.
 * A token that proves that the database went back, and a purge that is due, come first.
 */
import { unknownToken } from '../../matrix-error.ts'
import type { DeviceRef, Position, Session, UserRef } from '../../session.ts'
import type { SyncQuery, SyncReading } from '../../sync/port.ts'
import { type Continuation, continueFrom, type SyncToken } from '../../sync/token.ts'
import type { Core } from './core.ts'
import { isStale, purgeStaleNow } from './purge-stale-pools.ts'
import { acknowledgeAdvertised, noteAdvertised, poolStatus } from './pool-status.ts'
import { confirmMessages } from './send-messages.ts'
import { findSession } from './sessions.ts'
import { changedSince } from './tracked-users.ts'

/** Below every position: everything is newer. */
const BEGINNING = -1

/** @throws {MatrixError} 401 when the session has ended, 503 when memory cannot be read anew after a failure. */
export async function readSync(core: Core, session: Session, query: SyncQuery): Promise<SyncReading> {
  for (;;) {
    core.queue.mend()
    if (findSession(core, session.tokenHash) === undefined) throw unknownToken()
    const start = continueFrom(query.token, core.fence.endOfStream(query.token))
    if (start.proof !== undefined) await raiseFor(core, query.token)
    else if (isStale(core, session.deviceRef)) await purgeStaleNow(core, session.deviceRef)
    else return readFrom(core, session, query, start)
  }
}

function readFrom(core: Core, session: Session, query: SyncQuery, start: Continuation): SyncReading {
  const { deviceRef } = session
  const { since } = start
  if (query.confirms && since !== undefined) {
    acknowledgeAdvertised(core, deviceRef, since)
    confirmMessages(core, session, since)
  }
  const reading = readSince(core, session, start, query)
  // A token that stays where it was proves nothing when it comes again: the answer may have been lost.
  if (reading.position !== since && query.isAnswer(reading)) noteAdvertised(core, deviceRef, reading.position)
  return reading
}

/** Raises the fence, unless it has been raised for the same proof meanwhile: many may bring it at once. */
function raiseFor(core: Core, token: SyncToken | undefined): Promise<void> {
  return core.queue.plain(() => {
    const { proof } = continueFrom(token, core.fence.endOfStream(token))
    if (token === undefined || proof === undefined) return
    core.fence.raise(proof, token)
    core.wakes.everyone()
  })
}

function readSince(
  core: Core,
  { deviceRef, userRef }: Session,
  { since, newEpoch, everyone }: Continuation,
  { toDeviceLimit, everyoneFromBeginning }: SyncQuery,
): SyncReading {
  const from = since ?? BEGINNING
  const { epoch, position: last } = core.fence.endOfStream()
  const messages =
    core.news.lastMessage(deviceRef) > from ? messagesSince(core, deviceRef, from, toDeviceLimit) : []
  const userHasNews = core.news.lastForUser(userRef) > from
  // When there may be more, the answer tells everything only up to its last message.
  const full = messages.length === toDeviceLimit
  const listsSince = everyone ? BEGINNING : (since ?? (everyoneFromBeginning ? BEGINNING : undefined))
  const device = core.keys.byRef(deviceRef)
  return {
    epoch,
    since,
    newEpoch,
    position: (full ? messages.at(-1)?.pos : undefined) ?? last,
    toDevice: messages.map((message) => message.event),
    changedUsers:
      listsSince === undefined || !(userHasNews || everyone)
        ? []
        : changedSince(core, userRef, listsSince, last),
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
