/**
 * One reading for `/sync` (sync/reading.ts). It is synchronous, so that no commit interrupts it: counts, digest and
 * messages are of one instant. A raise of the fence, if the token proves a rollback, and a purge of stale pools come
 * first.
 */
import { unknownToken } from '../../matrix-error.ts'
import type { DeviceRef, Position, Session, UserRef } from '../../session.ts'
import type { SyncQuery, SyncReading } from '../../sync/port.ts'
import { completeUpTo, type PageItem, type PageLimits, upTo } from '../../sync/page.ts'
import { acknowledgedUpTo, advertisesCounts, rangeOf } from '../../sync/reading.ts'
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
    core.latestPositions.lastMessage(deviceRef) > from ? messagesSince(core, deviceRef, from, query.page) : []
  const newestForUser = core.latestPositions.lastForUser(userRef)
  const accountData = newestForUser > from ? accountDataSince(core, userRef, from, query.page) : []
  const position = completeUpTo({ messages, accountData }, query.page, last)
  const device = core.keys.byRef(deviceRef)
  return {
    epoch,
    since: start.since,
    newEpoch: start.newEpoch,
    position,
    lists: last,
    toDevice: upTo(messages, position).map((message) => message.event),
    changedUsers:
      listsFrom !== undefined && newestForUser > listsFrom
        ? changedSince(core, userRef, listsFrom, last)
        : [],
    accountData: upTo(accountData, position),
    signalled: device !== undefined && device.signalPos > from,
    pools: poolStatus(core, deviceRef),
  }
}

/** The messages of a page. Only as many as a page may have are measured, and no text beyond it is read. */
function messagesSince(
  core: Core,
  device: DeviceRef,
  from: Position,
  { toDevicePerSync, syncPageBytes }: PageLimits,
): (PageItem & { readonly event: string })[] {
  return core.db.all(
    `select pos, event, bytes from (
       select *, sum(bytes) over (order by pos) as total from (
         select pos, event, octet_length(event) as bytes from inbox
         where device_num = ? and pos > ? order by pos limit ?))
     where total - bytes < ? order by pos`,
    device,
    from,
    toDevicePerSync,
    syncPageBytes,
  )
}

function accountDataSince(
  core: Core,
  user: UserRef,
  from: Position,
  { syncPageBytes }: PageLimits,
): (PageItem & SyncReading['accountData'][number])[] {
  return core.db.all(
    `select pos, type, content, bytes from (
       select *, sum(bytes) over (order by pos) as total from (
         select pos, type, content, octet_length(type) + octet_length(content) as bytes from account_data
         where user_num = ? and pos > ?))
     where total - bytes < ? order by pos`,
    user,
    from,
    syncPageBytes,
  )
}
