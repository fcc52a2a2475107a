/**
 * The reading for a `/sync` (sync/reading.ts): its counts, digests, messages and position are of the same instant.
 * Without news the overview has all of them. With news, the overview and the news are read in one snapshot.
 */
import type { PoolStatus } from '../../pool/commands.ts'
import type { Position, Session, UserRef } from '../../session.ts'
import type { SyncQuery, SyncReading } from '../../sync/port.ts'
import { completeUpTo, type PageItem, type PageLimits, upTo } from '../../sync/page.ts'
import { acknowledgedUpTo, advertisesCounts, rangeOf } from '../../sync/reading.ts'
import type { StreamEnd, SyncToken } from '../../sync/token.ts'
import type { Core } from './core.ts'
import type { Snapshot } from './database.ts'
import { purgeStaleDevices, StalePoolsError } from './purge-stale-pools.ts'
import {
  acknowledgeAdvertised,
  fullStatus,
  noteAdvertised,
  type PoolSnapshot,
  statusOf,
} from './pool-status.ts'
import { confirmMessages } from './send-messages.ts'
import { type Overview, type OverviewBatches, readOverview, RollbackProved } from './sync-overview.ts'
import { changedSince } from './tracked-users.ts'

/** @throws {MatrixError} 401 when the session has ended. */
export async function readSync(
  core: Core,
  overviews: OverviewBatches,
  session: Session,
  query: SyncQuery,
): Promise<SyncReading> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await readOnce(core, overviews, session, query)
    } catch (error) {
      if (attempt === MAX_ATTEMPTS) throw error
      if (error instanceof StalePoolsError) await purgeStaleDevices(core, error.devices)
      else if (error instanceof RollbackProved) await proveRollback(core, error)
      else throw error
    }
  }
}

/** A rollback, then stale pools, and both again because of another process; more attempts are a fault. */
const MAX_ATTEMPTS = 5

function proveRollback({ db, fence }: Core, { token }: RollbackProved): Promise<void> {
  return db.withConnection((connection) => fence.raiseFor(connection, token))
}

async function readOnce(
  core: Core,
  overviews: OverviewBatches,
  session: Session,
  query: SyncQuery,
): Promise<SyncReading> {
  const overview = await overviews.submit({ session, token: query.token })
  const acknowledged = acknowledgedUpTo(overview, query)
  if (acknowledged !== undefined) {
    await acknowledgeAdvertised(core, session.deviceRef, acknowledged)
    if (overview.first_message !== null && overview.first_message <= acknowledged) {
      confirmMessages(core, session, acknowledged)
    }
  }
  const { reading, pools } = idleReading(core, overview) ?? (await readNews(core, session, query))
  if (advertisesCounts(reading, query)) {
    noteAdvertised(core, session.deviceRef, reading.position, pools)
  }
  return reading
}

export async function endOfStream({ db }: Pick<Core, 'db'>, token?: SyncToken): Promise<StreamEnd> {
  const row = await db.one<Pick<SyncToken, 'epoch' | 'position'> & { readonly former_end: Position | null }>(
    `select epoch, pos as position, (select end_pos from former_epochs where epoch = $1) as former_end from stream`,
    token?.epoch ?? '',
  )
  if (row === undefined) throw new Error('the stream has no row')
  const { epoch, position, former_end: formerEnd } = row
  return { epoch, position, formerEnd: formerEnd ?? undefined }
}

type Read = { readonly reading: SyncReading; readonly pools: PoolSnapshot }

/** The reading without news; undefined if there are news, or if a digest must be read. */
function idleReading(core: Core, overview: Overview): Read | undefined {
  const { since, user_has_news: hasNews, last_message: lastMessage } = overview
  if (since === undefined || hasNews || (lastMessage !== null && lastMessage > since)) return undefined
  const status = statusOf(overview, core.digests)
  return status && { reading: { ...readingOf(overview, since, status), ...NO_NEWS }, pools: overview }
}

const NO_NEWS = { toDevice: [], changedUsers: [], accountData: [] } as const

function readingOf(
  overview: Overview,
  from: Position,
  pools: PoolStatus,
): Pick<SyncReading, 'epoch' | 'since' | 'newEpoch' | 'position' | 'lists' | 'signalled' | 'pools'> {
  const { epoch, since, newEpoch, position, signal_pos: signalPos } = overview
  return { epoch, since, newEpoch, position, lists: position, signalled: signalPos > from, pools }
}

function readNews(core: Core, session: Session, query: SyncQuery): Promise<Read> {
  return core.db.snapshot(async (snapshot) => {
    const overview = await readOverview(snapshot, { session, token: query.token })
    const { position, user_has_news: hasNews } = overview
    const { from, listsFrom } = rangeOf(overview, query)
    const messages = await messagesSince(snapshot, session, from, query.page)
    const accountData = hasNews ? await accountDataSince(snapshot, session.userRef, from, query.page) : []
    const complete = completeUpTo({ messages, accountData }, query.page, position)
    const reading: SyncReading = {
      ...readingOf(overview, from, await fullStatus(core, snapshot, overview)),
      position: complete,
      toDevice: upTo(messages, complete).map((message) => message.event),
      changedUsers:
        hasNews && listsFrom !== undefined
          ? await changedSince(snapshot, session.userRef, listsFrom, position)
          : [],
      accountData: upTo(accountData, complete),
    }
    return { reading, pools: overview }
  })
}

/** The messages of a page. Only as many as a page may have are measured. */
function messagesSince(
  snapshot: Snapshot,
  { deviceRef }: Session,
  from: Position,
  { toDevicePerSync, syncPageBytes }: PageLimits,
): Promise<(PageItem & { readonly event: string })[]> {
  return snapshot.all(
    `select pos, event, bytes from (
       select *, sum(bytes) over (order by pos) as total from (
         select pos, event, octet_length(event) as bytes from inbox
         where device_num = $1 and pos > $2 order by pos limit $3) as newer) as page
     where total - bytes < $4::bigint order by pos`,
    deviceRef,
    from,
    toDevicePerSync,
    syncPageBytes,
  )
}

function accountDataSince(
  snapshot: Snapshot,
  user: UserRef,
  from: Position,
  { syncPageBytes }: PageLimits,
): Promise<(PageItem & SyncReading['accountData'][number])[]> {
  return snapshot.all(
    `select pos, type, content, bytes from (
       select *, sum(bytes) over (order by pos) as total from (
         select pos, type, content, octet_length(type) + octet_length(content) as bytes from account_data
         where user_num = $1 and pos > $2) as newer) as page
     where total - bytes < $3::bigint order by pos`,
    user,
    from,
    syncPageBytes,
  )
}
