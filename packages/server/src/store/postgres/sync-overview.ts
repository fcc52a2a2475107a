/**
 * The overview for a `/sync`, read by one statement: all of the answer if there are no news, the usual case. One
 * statement reads the overviews that are requested at the same time, at an instant after all of the requests arrived.
 */
import { unknownToken } from '../../matrix-error.ts'
import type { Position, Session } from '../../session.ts'
import { continueFrom, type Continuation, type SyncToken } from '../../sync/token.ts'
import { Batches, outcomeOf } from './batches.ts'
import type { Queries, Snapshot } from './database.ts'
import { StalePoolsError } from './purge-stale-pools.ts'
import { POOLS_JSON, type ReadSnapshot } from './pool-status.ts'

type OverviewRow = ReadSnapshot & {
  /** The end of the stream. */
  readonly position: Position
  /** The end of the token's epoch, if it is a former one. */
  readonly former_end: Position | null
  readonly signal_pos: Position
  readonly first_message: Position | null
  readonly last_message: Position | null
  /** Device lists or account data newer than the token; true without a token, or with one of a former epoch. */
  readonly user_has_news: boolean
}

export type Overview = OverviewRow & Continuation

/** The session of a sync, and the token that it presents. */
export type OverviewRequest = { readonly session: Session; readonly token: SyncToken | undefined }

/** The token proves that the database was rolled back. */
export class RollbackProved extends Error {
  readonly token: SyncToken

  constructor(token: SyncToken, proof: string) {
    super(proof)
    this.token = token
  }
}

export type OverviewBatches = Batches<OverviewRequest, Overview>

/** Two, as for sessions (find-sessions.ts). */
const AT_ONCE = 2
const MAX_OVERVIEWS = 200
const SLOW_MS = 100

/** Reads overviews in batches; each rejects like `readOverview`. */
export function overviewBatches(db: Queries): OverviewBatches {
  return new Batches({
    atOnce: AT_ONCE,
    maxSize: MAX_OVERVIEWS,
    slowMs: SLOW_MS,
    async run(requests) {
      const rows = await readRows(db, requests)
      return { outcomes: requests.map((request, i) => outcomeOf(() => toOverview(request, rows.get(i)))) }
    },
  })
}

/**
 * Reads one overview in a snapshot.
 *
 * @throws {MatrixError} 401 when the session has ended.
 * @throws {StalePoolsError | RollbackProved}
 */
export async function readOverview(snapshot: Snapshot, request: OverviewRequest): Promise<Overview> {
  return toOverview(request, (await readRows(snapshot, [request])).get(0))
}

function toOverview({ session, token }: OverviewRequest, row: OverviewRow | undefined): Overview {
  if (row === undefined) throw unknownToken()
  const { epoch, position, former_end: formerEnd } = row
  const continuation = continueFrom(token, { epoch, position, formerEnd: formerEnd ?? undefined })
  if (continuation.proof !== undefined && token !== undefined)
    throw new RollbackProved(token, continuation.proof)
  if (row.stale) throw new StalePoolsError([session.deviceRef])
  return { ...row, ...continuation }
}

/**
 * Rows by the place of their request; requests whose session has ended have none. The position of the oldest token is a
 * parameter of its own, because it shows the planner how few lists are newer. `limit 1` keeps the planner from reading
 * whole tables for a batch.
 */
async function readRows(
  db: Queries,
  requests: readonly OverviewRequest[],
): Promise<ReadonlyMap<number, OverviewRow>> {
  const oldest = Math.min(...requests.map(({ token }) => token?.position ?? Number.MAX_SAFE_INTEGER))
  const rows = await db.all<OverviewRow & { readonly place: number }>(
    `with stream as materialized (select epoch, pos, fence from stream)
     select request.place, stream.epoch, stream.pos as position, former.end_pos as former_end,
       devices.fence < stream.fence as stale, version, generation, ${POOLS_JSON} as pools,
       greatest(signal_pos, (select max(signal_pos) from pools where pools.device_num = devices.device_num)) as signal_pos,
       (select min(pos) from inbox where inbox.device_num = devices.device_num) as first_message,
       (select max(pos) from inbox where inbox.device_num = devices.device_num) as last_message,
       since is null or former.end_pos is not null or list_pos > since
         or exists (select 1 from tracked_users where observer_num = devices.user_num and pos > since and pos > 0)
         or exists (select 1 from tracked_users join users as target on target.user_num = target_num
                    where observer_num = devices.user_num and target.list_pos > since
                      and target.list_pos > $6::bigint)
         or exists (select 1 from account_data where account_data.user_num = devices.user_num and pos > since)
         as user_has_news
     from unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[], $5::text[])
         as request (place, token_hash, device_num, since, epoch)
       cross join lateral (
         select device_num, user_num, devices.fence, version, generation, signal_pos, list_pos
         from access_tokens join devices using (device_num) join users using (user_num)
         where token_hash = request.token_hash and device_num = request.device_num and removed_ts is null limit 1) as devices
       cross join stream left join former_epochs as former on former.epoch = request.epoch`,
    requests.map((_, place) => place),
    requests.map(({ session }) => session.tokenHash),
    requests.map(({ session }) => session.deviceRef),
    requests.map(({ token }) => token?.position ?? null),
    requests.map(({ token }) => token?.epoch ?? ''),
    oldest,
  )
  return new Map(rows.map((row) => [row.place, row]))
}
