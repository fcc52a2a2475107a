/**
 * One reading for `/sync` (sync/reading.ts). It is synchronous, so that no commit interrupts it: counts, digest and
 * messages are of one instant. A raise of the fence, if the token proves a rollback, and a purge of stale pools come
 * first.
 */
import { unknownToken } from '../../matrix-error.ts'
import type { DeviceRef, Position, Session, UserRef } from '../../session.ts'
import type { SyncQuery, SyncReading } from '../../sync/port.ts'
import { acknowledgedUpTo, advertisesCounts, completeUpTo, rangeOf } from '../../sync/reading.ts'
import { type Continuation, continueFrom, type SyncToken } from '../../sync/token.ts'
import type { Core } from './core.ts'
import { isStale, purgeStaleNow } from './purge-stale-pools.ts'
import { acknowledgeAdvertised, noteAdvertised, poolStatus } from './pool-status.ts'
import { confirmMessages } from './send-messages.ts'
import { findSession } from './sessions.ts'
import { changedSince } from './tracked-users.ts'

/** @throws {MatrixError} 401 when the session has ended, 503 when memory cannot be rebuilt after a failure. */
export async function readSync(core: Core, session: Session, query: SyncQuery): Promise<SyncReading> {
  for (;;) {
    core.queue.rebuildMemory()
    if (findSession(core, session.tokenHash) === undefined) throw unknownToken()
    const start = continueFrom(query.token, core.fence.endOfStream(query.token))
    if (start.proof !== undefined) await raiseFor(core, query.token)
    else if (isStale(core, session.deviceRef)) await purgeStaleNow(core, session.deviceRef)
    else return readFrom(core, session, query, start)
  }
}

function readFrom(core: Core, session: Session, query: SyncQuery, start: Continuation): SyncReading {
  const { deviceRef } = session
  const acknowledged = acknowledgedUpTo(start, query)
  if (acknowledged !== undefined) {
    acknowledgeAdvertised(core, deviceRef, acknowledged)
    confirmMessages(core, session, acknowledged)
  }
  const reading = readSince(core, session, start, query)
  if (advertisesCounts(reading, query)) noteAdvertised(core, deviceRef, reading.position)
  return reading
}

/** Raises the fence, unless another request has raised it for the same proof: many clients may send it at once. */
function raiseFor(core: Core, token: SyncToken | undefined): Promise<void> {
  return core.queue.plain((tx) => {
    const { proof } = continueFrom(token, core.fence.endOfStream(token))
    if (token === undefined || proof === undefined) return
    core.fence.raise(tx, proof, token)
    core.wakes.everyone(tx)
  })
}

function readSince(
  core: Core,
  { deviceRef, userRef }: Session,
  start: Continuation,
  query: SyncQuery,
): SyncReading {
  const { from, listsFrom } = rangeOf(start, query)
  const { epoch, position: last } = core.fence.endOfStream()
  const messages =
    core.latestPositions.lastMessage(deviceRef) > from
      ? messagesSince(core, deviceRef, from, query.toDeviceLimit)
      : []
  const newestForUser = core.latestPositions.lastForUser(userRef)
  const device = core.keys.byRef(deviceRef)
  return {
    epoch,
    since: start.since,
    newEpoch: start.newEpoch,
    position: completeUpTo(messages, query, last),
    toDevice: messages.map((message) => message.event),
    changedUsers:
      listsFrom !== undefined && newestForUser > listsFrom
        ? changedSince(core, userRef, listsFrom, last)
        : [],
    accountData: newestForUser > from ? accountDataSince(core, userRef, from) : [],
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
