/**
 * One reading for `/sync`, of one instant: counts, digest, messages and position belong together. One statement says
 * everything when there is no news, which is the usual case; with news the same statement and those that fetch it run in
 * one snapshot.
 */
import { unknownToken } from '../../matrix-error.ts'
import type { PoolStatus } from '../../pool/port.ts'
import type { Position, Session, UserRef } from '../../session.ts'
import type { SyncQuery, SyncReading } from '../../sync/port.ts'
import { continuesFrom, type SyncToken } from '../../sync/token.ts'
import type { Core } from './core.ts'
import type { Queries } from './database.ts'
import {
  type DeviceStanding,
  fullStatus,
  noteTold,
  offerCounts,
  POOLS_JSON,
  statusOf,
} from './pool-status.ts'
import { confirmMessages } from './send-messages.ts'
import { changedSince } from './tracked-users.ts'

/** Below every position: everything is newer. */
const BEGINNING = -1

/** @throws {MatrixError} 401 when the session has ended. */
export async function readSync(core: Core, session: Session, query: SyncQuery): Promise<SyncReading> {
  const overview = await readOverview(core.db, session, query.token)
  const { since } = overview
  if (query.confirms && since !== undefined) {
    await noteTold(core, session.deviceRef, since)
    if (overview.first_message !== null && overview.first_message <= since) {
      confirmMessages(core, session, since)
    }
  }
  const { reading, standing } = idleReading(core, overview) ?? (await readNews(core, session, query))
  // A token that stays where it was proves nothing when it comes again: the answer may have been lost.
  if (reading.position !== reading.since && query.isAnswer(reading)) {
    offerCounts(core, session.deviceRef, reading.position, standing)
  }
  return reading
}

export async function endOfStream({ db }: Pick<Core, 'db'>): Promise<SyncToken> {
  const row = await db.one<SyncToken>(`select epoch, pos as position from stream`)
  if (row === undefined) throw new Error('the stream has no row')
  return row
}

type OverviewRow = DeviceStanding & {
  /** Where the stream ends. */
  readonly position: Position
  readonly signal_pos: Position
  readonly first_message: Position | null
  readonly last_message: Position | null
  /** Something newer than the token in device lists or account data; true without a token. */
  readonly user_has_news: boolean
}

type Overview = OverviewRow & { readonly since: Position | undefined }

async function readOverview(
  db: Queries,
  { tokenHash, deviceRef }: Session,
  token: SyncToken | undefined,
): Promise<Overview> {
  const row = await db.one<OverviewRow>(
    `select epoch, stream.pos as position, version, generation, ${POOLS_JSON} as pools,
       greatest(signal_pos, (select max(signal_pos) from pools where pools.device_num = devices.device_num)) as signal_pos,
       (select min(pos) from inbox where inbox.device_num = devices.device_num) as first_message,
       (select max(pos) from inbox where inbox.device_num = devices.device_num) as last_message,
       $3::bigint is null or list_pos > $3
         or exists (select 1 from tracked_users where observer_num = user_num and pos > $3)
         or exists (select 1 from tracked_users join users as target on target.user_num = target_num
                    where observer_num = users.user_num and target.list_pos > $3)
         or exists (select 1 from account_data where account_data.user_num = users.user_num and pos > $3)
         as user_has_news
     from stream cross join access_tokens join devices using (device_num) join users using (user_num)
     where token_hash = $1 and device_num = $2 and removed_ts is null`,
    tokenHash,
    deviceRef,
    token?.position ?? null,
  )
  if (row === undefined) throw unknownToken()
  return { ...row, since: continuesFrom(token, row) }
}

type Read = { readonly reading: SyncReading; readonly standing: DeviceStanding }

/** The reading without news; undefined when there is some, or a digest that has to be read. */
function idleReading(core: Core, overview: Overview): Read | undefined {
  const { since, user_has_news: hasNews, last_message: lastMessage } = overview
  if (since === undefined || hasNews || (lastMessage !== null && lastMessage > since)) return undefined
  const pools = statusOf(overview, core.digests)
  return pools && { reading: { ...readingOf(overview, pools), ...NO_NEWS }, standing: overview }
}

const NO_NEWS = { toDevice: [], changedUsers: [], accountData: [] } as const

function readingOf(
  { epoch, since, position, signal_pos: signalPos }: Overview,
  pools: PoolStatus,
): Pick<SyncReading, 'epoch' | 'since' | 'position' | 'signalled' | 'pools'> {
  return { epoch, since, position, signalled: signalPos > (since ?? BEGINNING), pools }
}

function readNews(core: Core, session: Session, query: SyncQuery): Promise<Read> {
  const { toDeviceLimit, everyoneFromBeginning } = query
  return core.db.transaction(async (tx) => {
    const overview = await readOverview(tx, session, query.token)
    const { since, position, user_has_news: hasNews } = overview
    const from = since ?? BEGINNING
    const messages = await messagesSince(tx, session, from, toDeviceLimit)
    // When there may be more, the answer tells everything only up to its last message.
    const full = messages.length === toDeviceLimit
    const listsSince = since ?? (everyoneFromBeginning ? BEGINNING : undefined)
    const reading: SyncReading = {
      ...readingOf(overview, await fullStatus(core, tx, overview)),
      position: (full ? messages.at(-1)?.pos : undefined) ?? position,
      toDevice: messages.map((message) => message.event),
      changedUsers:
        listsSince !== undefined && (hasNews || since === undefined)
          ? await changedSince(tx, session.userRef, listsSince, position)
          : [],
      accountData: hasNews || since === undefined ? await accountDataSince(tx, session.userRef, from) : [],
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
