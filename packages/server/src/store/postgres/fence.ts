/**
 * The rollback fence on PostgreSQL: the counters of this process, and when they are looked at (fence/judge.ts has the rule).
 *
 * Every write transaction runs in a lane of its own and begins by counting the lane's row up, provided that the row is not
 * behind what was acknowledged: a database that went back is found by the first write, whatever stands between it and this
 * process. The same look is taken on every new connection, because reads need it too. The counting statement holds a lock
 * on its table that a raise waits for, so epoch and fence stay as they are for as long as a write lasts.
 */
import { setTimeout as wait } from 'node:timers/promises'
import { LRUCache } from 'lru-cache'
import type { OnFence } from '../../fence/events.ts'
import { type Judgement, judge, type Mark, type Marks } from '../../fence/judge.ts'
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
  /** When the server was started. */
  readonly start: string
}

export type FenceOptions = {
  /** Writes that run at the same time. */
  readonly lanes: number
  /** Undefined: nothing is counted. The fence can be raised by command or by a sync token all the same. */
  readonly witness: Witness | undefined
  /** What other witnesses in the directory say, of processes that run or do not. */
  readonly otherWitnesses: () => readonly { readonly writerId: string; readonly marks: Marks }[]
  readonly onFence: OnFence
  /** The fence was raised: everyone's pools are gone. */
  readonly onNewEpoch: () => void
  /** What is remembered of the database may be of one that is no more. */
  readonly forget: () => void
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/**
 * This lane's row is missing or behind, or epoch and server are not those that were looked at: `look` says what that means, then
 * the write is tried again.
 */
export class LaneBehind extends Error {}

type Lane = { readonly number: number; readonly usableAtMs: number }

/** Some other process may know that this server lacks what was acknowledged. */
export class NotLooked extends Error {}

/** More lanes than connections are needed only while connections break one after the other. */
const MAX_LANES_PER_CONNECTION = 8
/** How long a claim waits for other processes to look at a server that was started, and who counts as one. */
const LOOK_WITHIN_S = 10
const WROTE_WITHIN_MS = 10 * 60 * 1000
const ASK_EVERY_MS = 100

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
  /** The server start that the last look was taken on, and the last one that all others are known to have looked at. */
  #start: string | undefined
  #lookedByAll: string | undefined
  #free: Lane[] = []
  #lanes = 0

  constructor(options: FenceOptions) {
    this.#options = options
    this.#marks = new Map(options.witness?.marks)
  }

  /** A lane that no other transaction of this process is in. @throws {MatrixError} 503 when too many rest */
  takeLane(): number {
    if (this.#lanes >= MAX_LANES_PER_CONNECTION * this.#options.lanes && this.#free.every(isResting))
      throw unavailable('Too many connections to the database broke one after the other.')
    const i = this.#free.findIndex((lane) => !isResting(lane))
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
    return `begin; ${count}; select epoch, fence, fallback_fence, ${SERVER_START} as start from stream`
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
    if (standing.epoch !== this.#epoch || standing.start !== this.#start)
      throw new LaneBehind('the epoch or the server is another')
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
    this.#options.forget()
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
    await this.#noteStart(connection, found.start)
    if (found.evidence !== undefined) {
      await this.#raise(connection, async ({ position }) => {
        const { evidence } = await this.#compare(connection)
        return evidence && { ...evidence, position }
      })
      found = await this.#compare(connection)
    }
    await this.#startAnew(found)
    this.saw(found)
    this.#epoch = found.epoch
    await this.#addLanes(connection, found.rows)
    await this.#noteLook(connection, found.start)
  }

  /**
   * Keys are issued when all processes that wrote lately have compared their counters on this server since it was started,
   * or have had time to: one that lost nothing must not issue what another had issued and lost.
   *
   * @throws {NotLooked} wait for `othersHaveLooked`
   */
  requireLooked({ start }: Standing): void {
    if (start !== this.#lookedByAll) throw new NotLooked('not everyone has looked at this server')
  }

  /** Resolves when keys may be issued on the server of the last look. */
  async othersHaveLooked(db: Queries): Promise<void> {
    for (;;) {
      const row = await db.one<{ start: string; waits: boolean }>(
        `select server_start as start,
           server_start_noted > clock_timestamp() - make_interval(secs => ${LOOK_WITHIN_S}) and exists (
             select 1 from writers
             where ts > coalesce(server_start_written_ts, 0) - ${WROTE_WITHIN_MS} and not exists (
               select 1 from looks
               where looks.writer_id = writers.writer_id and looks.server_start = stream.server_start)) as waits
         from stream`,
      )
      if (row === undefined) throw new Error('the stream has no row')
      if (!row.waits) {
        this.#lookedByAll = row.start
        return
      }
      await wait(ASK_EVERY_MS)
    }
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
    const { now, onFence, onNewEpoch, forget } = this.#options
    const raised = await connection.transaction((tx) => raiseFence(tx, now(), judge))
    if (raised === undefined) return
    const { epoch, fence: number, reason, droppedFallbackKeys } = raised
    this.#told.set(epoch, true)
    onFence({ kind: 'raised', number, reason, droppedFallbackKeys })
    forget()
    onNewEpoch()
  }

  async #compare(db: Queries): Promise<Found> {
    // Taken before the question: all of it had been committed by then.
    const marks = new Map(this.#marks)
    const own = this.#options.witness?.writerId ?? ''
    const witnesses = [{ writerId: own, marks }, ...this.#options.otherWitnesses()]
    const epochs = witnesses.flatMap((witness) => [...witness.marks.values()].map(({ epoch }) => epoch))
    const row = await db.one<{
      epoch: string
      fence: number
      standby: boolean
      start: string
      rows: [string, number, number][]
      former: string[]
    }>(
      `select epoch, fence, pg_is_in_recovery() as standby, ${SERVER_START} as start,
         (select coalesce(json_agg(json_build_array(writer_id, lane, n)), '[]')
          from writers where writer_id = any($1::text[])) as rows,
         (select coalesce(json_agg(epoch), '[]') from former_epochs where epoch = any($2::text[])) as former
       from stream`,
      witnesses.map(({ writerId }) => writerId),
      [...new Set(epochs)],
    )
    if (row === undefined) throw new Error('the stream has no row')
    if (row.standby) throw unavailable('The database is a standby, which cannot be written to.')
    const { epoch, fence, start } = row
    const former = new Set(row.former)
    const rowsOf = (writerId: string): Map<number, number> =>
      new Map(row.rows.filter(([writer]) => writer === writerId).map(([, lane, n]) => [lane, n]))
    const judgements = witnesses.map((witness) =>
      judge(witness.marks, { epoch, rows: rowsOf(witness.writerId), former }),
    )
    const behind = judgements.findIndex(({ kind }) => kind === 'behind')
    return {
      epoch,
      fence,
      start,
      marks,
      rows: rowsOf(own),
      evidence:
        behind === -1
          ? undefined
          : {
              reason: describe(judgements[behind], behind === 0 ? 'this process' : 'another process'),
              epochs,
            },
    }
  }

  /** Marks of former epochs: lanes that are behind count from what the database has; the others are of this epoch, too. */
  async #startAnew({ epoch, rows, marks }: Found): Promise<void> {
    const old = [...marks].filter(([, mark]) => mark.epoch !== epoch)
    if (old.length === 0) return
    for (const [lane, mark] of old) {
      if (this.#marks.get(lane) !== mark) continue
      this.#marks.set(lane, { n: Math.min(mark.n, rows.get(lane) ?? 0), epoch })
    }
    await this.#options.witness?.replace(this.#marks)
  }

  /**
   * A database is put back by starting a server on it: the first to meet it there notes how it stood, before anyone writes.
   */
  async #noteStart(db: Queries, start: string): Promise<void> {
    await db.run(
      `update stream set server_start = $1, server_start_pos = pos, server_start_noted = clock_timestamp(),
         server_start_written_ts = (select max(ts) from writers where ts > 0)
       where server_start is distinct from $1`,
      start,
    )
    if (this.#start !== undefined && this.#start !== start) this.#options.forget()
    this.#start = start
  }

  /** For those who wait: this process has compared its counters, and the fence is raised if they asked for it. */
  async #noteLook(db: Queries, start: string): Promise<void> {
    const { witness } = this.#options
    if (witness === undefined) return
    await db.run(
      `insert into looks (writer_id, server_start) values ($1, $2)
       on conflict (writer_id) do update set server_start = excluded.server_start
       where looks.server_start <> excluded.server_start`,
      witness.writerId,
      start,
    )
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
  /** Of this process. */
  readonly rows: ReadonlyMap<number, number>
  readonly marks: Marks
  /** Why the fence is to be raised. */
  readonly evidence: Pick<Evidence, 'reason' | 'epochs'> | undefined
}

const SERVER_START = `extract(epoch from pg_postmaster_start_time())::text`

function isResting({ usableAtMs }: Lane): boolean {
  return usableAtMs > performance.now()
}

function describe(judgement: Judgement | undefined, who: string): string {
  if (judgement?.kind !== 'behind') return 'the database went back'
  const { lane, acknowledged, found } = judgement
  return found < acknowledged
    ? `${who} acknowledged write ${acknowledged} of its lane ${lane}, the database has ${found}`
    : `${who} acknowledged a write in an epoch that the database never had`
}
