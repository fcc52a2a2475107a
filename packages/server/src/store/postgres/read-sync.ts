/**
 * One reading for `/sync`, of one instant: counts, digest, messages and position belong together. One statement says
 * everything when there is no news, which is the usual case; with news the same statement and those that fetch it run in
 * one snapshot.
 */
import { unknownToken } from '../../matrix-error.ts'
import type { PoolStatus } from '../../pool/port.ts'
import type { Position, Session, UserRef } from '../../session.ts'
import type { SyncQuery, SyncReading } from '../../sync/port.ts'
import { continueFrom, type Continuation, type StreamEnd, type SyncToken } from '../../sync/token.ts'
import type { Core } from './core.ts'
import type { Queries } from './database.ts'
import { BelowFence, freshenDevices } from './freshen.ts'
import {
  type DeviceStanding,
  fullStatus,
  noteTold,
  offerCounts,
  POOLS_JSON,
  type ReadStanding,
  statusOf,
} from './pool-status.ts'
import { confirmMessages } from './send-messages.ts'
import { changedSince } from './tracked-users.ts'

/** Below every position: everything is newer. */
const BEGINNING = -1

/** @throws {MatrixError} 401 when the session has ended. */
export async function readSync(core: Core, session: Session, query: SyncQuery): Promise<SyncReading> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await readOnce(core, session, query)
    } catch (error) {
      if (attempt === MAX_ATTEMPTS) throw error
      if (error instanceof BelowFence) await freshenDevices(core, error.devices)
      else if (error instanceof WentBack) await proveWentBack(core, error)
      else throw error
    }
  }
}

/** Raising the fence puts the device below it; more than both, and once more by another process, is a fault. */
const MAX_ATTEMPTS = 5

/** The token proves that the database went back. */
class WentBack extends Error {
  readonly token: SyncToken

  constructor(token: SyncToken, proof: string) {
    super(proof)
    this.token = token
  }
}

function proveWentBack({ db, fence }: Core, { token }: WentBack): Promise<void> {
  return db.withConnection((connection) => fence.prove(connection, token))
}

async function readOnce(core: Core, session: Session, query: SyncQuery): Promise<SyncReading> {
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

export async function endOfStream({ db }: Pick<Core, 'db'>, token?: SyncToken): Promise<StreamEnd> {
  const row = await db.one<SyncToken & { readonly former_end: Position | null }>(
    `select epoch, pos as position, (select end_pos from former_epochs where epoch = $1) as former_end from stream`,
    token?.epoch ?? '',
  )
  if (row === undefined) throw new Error('the stream has no row')
  const { epoch, position, former_end: formerEnd } = row
  return { epoch, position, formerEnd: formerEnd ?? undefined }
}

type OverviewRow = ReadStanding & {
  /** Where the stream ends. */
  readonly position: Position
  /** Where the token's epoch ended, if it is a former one. */
  readonly former_end: Position | null
  readonly signal_pos: Position
  readonly first_message: Position | null
  readonly last_message: Position | null
  /** Something newer than the token in device lists or account data; true without a token, or with one of a former epoch. */
  readonly user_has_news: boolean
}

type Overview = OverviewRow & Continuation

/** @throws {BelowFence | WentBack} */
async function readOverview(
  db: Queries,
  { tokenHash, deviceRef }: Session,
  token: SyncToken | undefined,
): Promise<Overview> {
  const row = await db.one<OverviewRow>(
    `select stream.epoch, stream.pos as position, former.end_pos as former_end, devices.fence < stream.fence as stale,
       version, generation, ${POOLS_JSON} as pools,
       greatest(signal_pos, (select max(signal_pos) from pools where pools.device_num = devices.device_num)) as signal_pos,
       (select min(pos) from inbox where inbox.device_num = devices.device_num) as first_message,
       (select max(pos) from inbox where inbox.device_num = devices.device_num) as last_message,
       $3::bigint is null or former.end_pos is not null or list_pos > $3
         or exists (select 1 from tracked_users where observer_num = user_num and pos > $3)
         or exists (select 1 from tracked_users join users as target on target.user_num = target_num
                    where observer_num = users.user_num and target.list_pos > $3)
         or exists (select 1 from account_data where account_data.user_num = users.user_num and pos > $3)
         as user_has_news
     from stream left join former_epochs as former on former.epoch = $4
     cross join access_tokens join devices using (device_num) join users using (user_num)
     where token_hash = $1 and device_num = $2 and removed_ts is null`,
    tokenHash,
    deviceRef,
    token?.position ?? null,
    token?.epoch ?? '',
  )
  if (row === undefined) throw unknownToken()
  const { epoch, position, former_end: formerEnd } = row
  const continuation = continueFrom(token, { epoch, position, formerEnd: formerEnd ?? undefined })
  if (continuation.proof !== undefined && token !== undefined) throw new WentBack(token, continuation.proof)
  if (row.stale) throw new BelowFence([deviceRef])
  return { ...row, ...continuation }
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
  { epoch, since, newEpoch, position, signal_pos: signalPos }: Overview,
  pools: PoolStatus,
): Pick<SyncReading, 'epoch' | 'since' | 'newEpoch' | 'position' | 'signalled' | 'pools'> {
  return { epoch, since, newEpoch, position, signalled: signalPos > (since ?? BEGINNING), pools }
}

function readNews(core: Core, session: Session, query: SyncQuery): Promise<Read> {
  const { toDeviceLimit, everyoneFromBeginning } = query
  return core.db.transaction(async (tx) => {
    const overview = await readOverview(tx, session, query.token)
    const { since, everyone, position, user_has_news: hasNews } = overview
    const from = since ?? BEGINNING
    const messages = await messagesSince(tx, session, from, toDeviceLimit)
    // When there may be more, the answer tells everything only up to its last message.
    const full = messages.length === toDeviceLimit
    const listsSince = everyone ? BEGINNING : (since ?? (everyoneFromBeginning ? BEGINNING : undefined))
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
