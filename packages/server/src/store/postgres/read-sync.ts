/**
 * One reading for `/sync` (sync/reading.ts), of one instant: counts, digest, messages and position belong together.
 * Without news the overview has everything. With news the same statement and those that fetch them run in one snapshot.
 */
import type { PoolStatus } from '../../pool/commands.ts'
import type { Position, Session, UserRef } from '../../session.ts'
import type { SyncQuery, SyncReading } from '../../sync/port.ts'
import { acknowledgedUpTo, advertisesCounts, completeUpTo, rangeOf } from '../../sync/reading.ts'
import type { StreamEnd, SyncToken } from '../../sync/token.ts'
import type { Core } from './core.ts'
import type { Queries } from './database.ts'
import { purgeStaleDevices, StalePoolsError } from './purge-stale-pools.ts'
import {
  acknowledgeAdvertised,
  fullStatus,
  noteAdvertised,
  type PoolSnapshot,
  statusOf,
} from './pool-status.ts'
import { confirmMessages } from './send-messages.ts'
import { type Overview, type Overviews, readOverview, RollbackProved } from './sync-overview.ts'
import { changedSince } from './tracked-users.ts'

/** @throws {MatrixError} 401 when the session has ended. */
export async function readSync(
  core: Core,
  overviews: Overviews,
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

/** Raising the fence puts the device below it. More than both, and both again by another process, is a fault. */
const MAX_ATTEMPTS = 5

function proveRollback({ db, fence }: Core, { token }: RollbackProved): Promise<void> {
  return db.withConnection((connection) => fence.prove(connection, token))
}

async function readOnce(
  core: Core,
  overviews: Overviews,
  session: Session,
  query: SyncQuery,
): Promise<SyncReading> {
  const overview = await overviews.ask({ session, token: query.token })
  const acknowledged = acknowledgedUpTo(overview, query)
  if (acknowledged !== undefined) {
    await acknowledgeAdvertised(core, session.deviceRef, acknowledged)
    if (overview.first_message !== null && overview.first_message <= acknowledged) {
      confirmMessages(core, session, acknowledged)
    }
  }
  const { reading, standing } = idleReading(core, overview) ?? (await readNews(core, session, query))
  if (advertisesCounts(reading, query)) {
    noteAdvertised(core, session.deviceRef, reading.position, standing)
  }
  return reading
}

export async function endOfStream({ db }: Pick<Core, 'db'>, token?: SyncToken): Promise<StreamEnd> {
  const row = await db.one<SyncToken & { readonly former_end: Position | null }>(
    `select epoch, pos as position, (select end_pos from former_epochs where epoch = $1) as former_end from stream`,
    token?.epoch ?? '',
  )
  if (row === undefined) throw new Error('the stream has no row')
  const { epoch, position, former_end: formerEnd } = row
  return { epoch, position, formerEnd: formerEnd ?? undefined }
}

type Read = { readonly reading: SyncReading; readonly standing: PoolSnapshot }

/** The reading without news; undefined when there are news, or a digest that has to be read. */
function idleReading(core: Core, overview: Overview): Read | undefined {
  const { since, user_has_news: hasNews, last_message: lastMessage } = overview
  if (since === undefined || hasNews || (lastMessage !== null && lastMessage > since)) return undefined
  const pools = statusOf(overview, core.digests)
  return pools && { reading: { ...readingOf(overview, since, pools), ...NO_NEWS }, standing: overview }
}

const NO_NEWS = { toDevice: [], changedUsers: [], accountData: [] } as const

function readingOf(
  overview: Overview,
  from: Position,
  pools: PoolStatus,
): Pick<SyncReading, 'epoch' | 'since' | 'newEpoch' | 'position' | 'signalled' | 'pools'> {
  const { epoch, since, newEpoch, position, signal_pos: signalPos } = overview
  return { epoch, since, newEpoch, position, signalled: signalPos > from, pools }
}

function readNews(core: Core, session: Session, query: SyncQuery): Promise<Read> {
  return core.db.transaction(async (tx) => {
    const overview = await readOverview(tx, { session, token: query.token })
    const { position, user_has_news: hasNews } = overview
    const { from, listsFrom } = rangeOf(overview, query)
    const messages = await messagesSince(tx, session, from, query.toDeviceLimit)
    const reading: SyncReading = {
      ...readingOf(overview, from, await fullStatus(core, tx, overview)),
      position: completeUpTo(messages, query, position),
      toDevice: messages.map((message) => message.event),
      changedUsers:
        hasNews && listsFrom !== undefined
          ? await changedSince(tx, session.userRef, listsFrom, position)
          : [],
      accountData: hasNews ? await accountDataSince(tx, session.userRef, from) : [],
    }
    return { reading, standing: overview }
  }, 'snapshot')
}

function messagesSince(
  tx: Queries,
  { deviceRef }: Session,
  from: Position,
  limit: number,
): Promise<{ readonly pos: Position; readonly event: string }[]> {
  return tx.all(
    `select pos, event from inbox where device_num = $1 and pos > $2 order by pos limit $3`,
    deviceRef,
    from,
    limit,
  )
}

function accountDataSince(
  tx: Queries,
  user: UserRef,
  from: Position,
): Promise<{ readonly type: string; readonly content: string }[]> {
  return tx.all(
    `select type, content from account_data where user_num = $1 and pos > $2 order by pos`,
    user,
    from,
  )
}
