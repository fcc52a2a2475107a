/**
 * The rollback fence on PostgreSQL: the counters of this process, and when they are looked at (fence/judge.ts has the rule).
 *
 * Every write transaction runs in a lane of its own and begins by counting the lane's row up, provided that the row is not
 * behind what was acknowledged: a database that went back is found by the first write, whatever stands between it and this
 * process. The same look is taken on every new connection, because reads need it too. The counting statement holds a lock
 * on its table that a raise waits for, so epoch and fence stay as they are for as long as a write lasts.
 */
import { LRUCache } from 'lru-cache'
import type { OnFence } from '../../fence/events.ts'
import { type Judgement, judge, type Mark } from '../../fence/judge.ts'
import { unavailable } from '../../matrix-error.ts'
import type { Position } from '../../session.ts'
import { continueFrom, type SyncToken } from '../../sync/token.ts'
import type { Witness } from '../witness.ts'
import type { Connection, Queries } from './database.ts'
import { type Evidence, type FenceRow, raiseFence } from './raise-fence.ts'

/** The fence as a write transaction found it, for all of its time. */
export type Standing = {
  readonly epoch: string
  /** How often the fence was raised. */
  readonly fence: number
  /** Devices below it lose their fallback keys too. */
  readonly fallback_fence: number
}

export type FenceOptions = {
  /** Writes that run at the same time. */
  readonly lanes: number
  /** Undefined: nothing is counted. The fence can be raised by command or by a sync token all the same. */
  readonly witness: Witness | undefined
  readonly onFence: OnFence
  /** What is remembered of the database may be of one that is no more. */
  readonly onNewEpoch: () => void
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/**
 * This lane's row is missing or behind, or the epoch is not the one that was looked at: `look` says what that means, then
 * the write is tried again.
 */
export class LaneBehind extends Error {}

type Lane = { readonly number: number; readonly usableAtMs: number }

/** A lane whose connection broke may still be locked by its transaction for so long; until then others are used. */
const REST_MS = 30_000

export class Fence {
  readonly #options: FenceOptions
  /** What was acknowledged; ahead of the witness's file by what is being written to it. */
  readonly #marks: Map<number, Mark>
  /** The epoch that the last look found. */
  #epoch: string | undefined
  /** Epochs that have been told of. */
  readonly #told = new LRUCache<string, true>({ max: 100 })
  #free: Lane[] = []
  #lanes = 0

  constructor(options: FenceOptions) {
    this.#options = options
    this.#marks = new Map(options.witness?.marks)
  }

  /** A lane that no other transaction of this process is in. */
  takeLane(): number {
    const i = this.#free.findIndex(({ usableAtMs }) => usableAtMs <= performance.now())
    const [lane] = i === -1 ? [] : this.#free.splice(i, 1)
    return lane?.number ?? this.#lanes++
  }

  /** @param broken its transaction may not have ended yet */
  releaseLane(number: number, broken: boolean): void {
    this.#free.push({ number, usableAtMs: broken ? performance.now() + REST_MS : 0 })
  }

  /** What a write transaction in this lane begins with, as it stands; `entered` takes the results. */
  opening(lane: number): string {
    const { witness, now } = this.#options
    const count =
      witness === undefined
        ? // The lock that a raise waits for, and nothing else.
          `lock table writers in row exclusive mode`
        : `update writers set n = n + 1, ts = ${Math.trunc(now())} where writer_id = '${witness.writerId}'
             and lane = ${lane} and n >= ${this.#marks.get(lane)?.n ?? 0} returning n`
    return `begin; ${count}; select epoch, fence, fallback_fence from stream`
  }

  /**
   * What the transaction is to go by, and the mark that its commit leaves.
   *
   * @throws {LaneBehind}
   */
  entered([, counted, standings]: readonly { readonly rows: readonly unknown[] }[]): {
    readonly standing: Standing
    readonly mark: Mark | undefined
  } {
    const standing = standings?.rows[0] as Standing | undefined
    if (standing === undefined) throw new Error('the stream has no row')
    if (standing.epoch !== this.#epoch) throw new LaneBehind('the epoch is another')
    if (this.#options.witness === undefined) return { standing, mark: undefined }
    const row = counted?.rows[0] as { readonly n: number } | undefined
    if (row === undefined) throw new LaneBehind('the lane is behind')
    return { standing, mark: { n: row.n, epoch: standing.epoch } }
  }

  /** Before a write: whether it could be witnessed. @throws {MatrixError} 503 */
  async ready(): Promise<void> {
    await this.#options.witness?.ready()
  }

  /** After a commit. Resolves when the answer may leave. @throws {MatrixError} 503 */
  async witnessed(lane: number, mark: Mark | undefined): Promise<void> {
    if (mark === undefined) return
    this.#marks.set(lane, mark)
    await this.#options.witness?.record(lane, mark)
  }

  /** The poll, or a look, has found this epoch. */
  saw({ epoch, fence }: { readonly epoch: string; readonly fence: number }): void {
    if (this.#told.has(epoch)) return
    const isFirst = this.#told.size === 0
    this.#told.set(epoch, true)
    if (isFirst) return this.#options.onFence({ kind: 'stands', number: fence })
    this.#options.onFence({ kind: 'raised_elsewhere', number: fence })
    this.#options.onNewEpoch()
  }

  /**
   * Compares what was acknowledged with what the database has, and raises the fence if that is behind. At the start, on
   * every new connection, and when a lane's row was not what it should be.
   *
   * @throws {MatrixError} 503 on a standby: what it lacks may still arrive
   */
  async look(connection: Connection): Promise<void> {
    let found = await this.#compare(connection)
    await noteServerStart(connection, found.start)
    if (found.judgement.kind === 'behind') {
      await this.#raise(connection, async ({ position }) => {
        const { judgement } = await this.#compare(connection)
        if (judgement.kind !== 'behind') return undefined
        return {
          reason: describe(judgement),
          epochs: [...this.#marks.values()].map(({ epoch }) => epoch),
          position,
        }
      })
      found = await this.#compare(connection)
    }
    if (found.judgement.kind === 'fenced') await this.#startAnew(found)
    this.saw(found)
    this.#epoch = found.epoch
    await this.#addLanes(connection, found.rows)
  }

  /** A sync token is proof that the database went back. Nothing happens if another has raised the fence for it. */
  async prove(connection: Connection, token: SyncToken): Promise<void> {
    await this.#raise(connection, async (stream) => {
      const former = await connection.one<{ end_pos: Position }>(
        `select end_pos from former_epochs where epoch = $1`,
        token.epoch,
      )
      const { proof } = continueFrom(token, { ...stream, formerEnd: former?.end_pos })
      return proof === undefined
        ? undefined
        : { reason: proof, epochs: [token.epoch], position: token.position }
    })
  }

  async #raise(
    connection: Connection,
    judge: (found: FenceRow) => Promise<Evidence | undefined>,
  ): Promise<void> {
    const { now, onFence, onNewEpoch } = this.#options
    const raised = await connection.transaction((tx) => raiseFence(tx, now(), judge))
    if (raised === undefined) return
    const { epoch, fence: number, reason, droppedFallbackKeys } = raised
    this.#told.set(epoch, true)
    onFence({ kind: 'raised', number, reason, droppedFallbackKeys })
    onNewEpoch()
  }

  async #compare(db: Queries): Promise<Found> {
    // Taken before the question: all of it had been committed by then.
    const marks = new Map(this.#marks)
    const row = await db.one<{
      epoch: string
      fence: number
      standby: boolean
      start: string
      rows: [number, number][]
      former: string[]
    }>(
      `select epoch, fence, pg_is_in_recovery() as standby, ${SERVER_START} as start,
         (select coalesce(json_agg(json_build_array(lane, n)), '[]') from writers where writer_id = $1) as rows,
         (select coalesce(json_agg(epoch), '[]') from former_epochs where epoch = any($2::text[])) as former
       from stream`,
      this.#options.witness?.writerId ?? '',
      [...new Set([...marks.values()].map(({ epoch }) => epoch))],
    )
    if (row === undefined) throw new Error('the stream has no row')
    if (row.standby) throw unavailable('The database is a standby, which cannot be written to.')
    const counted = { epoch: row.epoch, rows: new Map(row.rows), former: new Set(row.former) }
    return { ...counted, fence: row.fence, start: row.start, marks, judgement: judge(marks, counted) }
  }

  /** The fence has been raised: lanes that are behind count from what the database has. */
  async #startAnew({ epoch, rows, marks }: Found): Promise<void> {
    for (const [lane, mark] of marks) {
      const n = rows.get(lane) ?? 0
      if (n < mark.n && this.#marks.get(lane) === mark) this.#marks.set(lane, { n, epoch })
    }
    await this.#options.witness?.replace(this.#marks)
  }

  async #addLanes(db: Queries, rows: ReadonlyMap<number, number>): Promise<void> {
    const { witness } = this.#options
    // Some ahead: many new ones may be needed at once, when all connections were lost.
    const lanes = this.#lanes + this.#options.lanes
    const missing = Array.from({ length: lanes }, (_, lane) => lane).filter((lane) => !rows.has(lane))
    if (witness === undefined || missing.length === 0) return
    await db.run(
      `insert into writers (writer_id, lane) select $1, unnest($2::int[]) on conflict do nothing`,
      witness.writerId,
      missing,
    )
  }
}

type Found = {
  readonly epoch: string
  readonly fence: number
  /** When the server was started. */
  readonly start: string
  readonly rows: ReadonlyMap<number, number>
  readonly marks: ReadonlyMap<number, Mark>
  readonly judgement: Judgement
}

const SERVER_START = `extract(epoch from pg_postmaster_start_time())::text`

/** A database is put back by starting a server on it: the first to meet it there notes where the stream stands, before anyone writes. */
async function noteServerStart(db: Queries, start: string): Promise<void> {
  await db.run(
    `update stream set server_start = $1, server_start_pos = pos where server_start is distinct from $1`,
    start,
  )
}

function describe({ lane, acknowledged, found }: Extract<Judgement, { kind: 'behind' }>): string {
  return `this process acknowledged write ${acknowledged} of its lane ${lane}, the database has ${found}`
}
