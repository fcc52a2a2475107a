/**
 * The rollback fence on PostgreSQL: the write counters of this process, and when they are compared with the database
 * (fence/judge.ts has the rule).
 *
 * Each write transaction has a lane and begins by incrementing the lane's row, provided that the row is not behind the
 * acknowledged count. So the first write detects a rolled-back database, regardless of proxies in between. Each new
 * connection is verified as well, because reads depend on it. The incrementing statement locks its table against a
 * raise, so epoch and fence stay unchanged during a write.
 */
import { setTimeout as wait } from 'node:timers/promises'
import { LRUCache } from 'lru-cache'
import type { OnFence } from '../../fence/events.ts'
import type { Mark } from '../../fence/judge.ts'
import { VERIFY_WITHIN_MS, WROTE_WITHIN_MS } from '../../fence/verification.ts'
import type { Position } from '../../session.ts'
import { continueFrom, type SyncToken } from '../../sync/token.ts'
import type { Witness } from '../witness.ts'
import { type Comparison, compareWitnesses, SERVER_START, type Witnessed } from './compare-witnesses.ts'
import type { Connection, Queries } from './database.ts'
import { FenceLanes } from './fence-lanes.ts'
import { type Evidence, type FenceRow, raiseFence } from './raise-fence.ts'

/** The fence at the start of a write transaction; it stays the same until its end. */
export type FenceSnapshot = {
  readonly epoch: string
  /** How often the fence was raised. */
  readonly number: number
  /** Devices below it lose their fallback keys as well. */
  readonly fallbackNumber: number
  /** The start of the database server. */
  readonly start: string
}

export type FenceOptions = {
  /** Connections for requests: the writes that run at the same time. */
  readonly connections: number
  /** Undefined: writes are not counted. A command or a sync token can still raise the fence. */
  readonly witness: Witness | undefined
  /** The other witnesses in the directory, of running and of ended processes. */
  readonly otherWitnesses: () => readonly Witnessed[]
  readonly onFence: OnFence
  /** The fence was raised: all pools are stale. */
  readonly onNewEpoch: () => void
  /** The database may have been replaced by an older copy: drop all caches. */
  readonly forget: () => void
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/**
 * The lane's row is missing or behind, or epoch and server start are not those of the last verification. The caller
 * verifies the fence and then repeats the write.
 */
export class FenceMismatchError extends Error {}

/** Another process may know of acknowledged writes that this database server lacks. */
export class UnverifiedServerError extends Error {}

const ASK_EVERY_MS = 100

export class Fence {
  readonly lanes: FenceLanes
  readonly #options: FenceOptions
  /** Acknowledged writes by lane; ahead of the witness file by the marks that are being written to it. */
  readonly #marks: Map<number, Mark>
  /** Epochs that were reported. */
  readonly #reported = new LRUCache<string, true>({ max: 100 })
  /** The epoch and the server start of the last verification. */
  #epoch: string | undefined
  #start: string | undefined
  /** The last server start that all other processes have verified. */
  #startVerifiedByAll: string | undefined

  constructor(options: FenceOptions) {
    this.#options = options
    this.lanes = new FenceLanes(options.connections)
    this.#marks = new Map(options.witness?.marks)
  }

  /** The first statements of a write transaction in this lane; `readOpening` takes their results. */
  opening(lane: number): string {
    const { witness, now } = this.#options
    const count =
      witness === undefined
        ? // Only the lock that a raise waits for.
          `lock table writers in row exclusive mode`
        : `update writers set n = n + 1, ts = ${Math.trunc(now())} where writer_id = '${witness.writerId}'
             and lane = ${lane} and n >= ${this.#marks.get(lane)?.n ?? 0} returning n`
    return `begin; ${count};
      select epoch, fence as number, fallback_fence as "fallbackNumber", ${SERVER_START} as start from stream`
  }

  /**
   * Returns the fence of the transaction, and the mark to acknowledge after its commit.
   *
   * @throws {FenceMismatchError}
   */
  readOpening([, counted, snapshots]: readonly { readonly rows: readonly unknown[] }[]): {
    readonly snapshot: FenceSnapshot
    readonly mark: Mark | undefined
  } {
    const snapshot = snapshots?.rows[0] as FenceSnapshot | undefined
    if (snapshot === undefined) throw new Error('the stream has no row')
    if (snapshot.epoch !== this.#epoch || snapshot.start !== this.#start)
      throw new FenceMismatchError('epoch or server start changed')
    if (this.#options.witness === undefined) return { snapshot, mark: undefined }
    const row = counted?.rows[0] as { readonly n: number } | undefined
    if (row === undefined) throw new FenceMismatchError('lane missing or behind')
    return { snapshot, mark: { n: row.n, epoch: snapshot.epoch } }
  }

  /** Before a write: whether it could be witnessed. @throws {MatrixError} 503 */
  async ready(): Promise<void> {
    await this.#options.witness?.ready()
  }

  /** After a commit. Resolves when the answer may be sent. @throws {MatrixError} 503 */
  async acknowledge(lane: number, mark: Mark | undefined): Promise<void> {
    if (mark === undefined) return
    this.#marks.set(lane, mark)
    await this.#options.witness?.record(lane, mark)
  }

  /** Reports an epoch that the poll or a verification found, once. */
  noteEpoch({ epoch, fence }: { readonly epoch: string; readonly fence: number }): void {
    if (this.#reported.has(epoch)) return
    const isFirst = this.#reported.size === 0
    this.#reported.set(epoch, true)
    if (isFirst) return this.#options.onFence({ kind: 'stands', number: fence })
    this.#options.onFence({ kind: 'raised_elsewhere', number: fence })
    this.#options.forget()
    this.#options.onNewEpoch()
  }

  /**
   * Compares the acknowledged writes with the database, and raises the fence if the database is behind. Called at the
   * start, on each new connection, and after a `FenceMismatchError`.
   *
   * @throws {MatrixError} 503 on a standby, because writes that it lacks may still arrive
   */
  async verify(connection: Connection): Promise<void> {
    // Copied before the query, so that all marks were committed by then.
    let marks = new Map(this.#marks)
    let found = await this.#compare(connection, marks)
    await this.#noteStart(connection, found.start)
    if (found.evidence !== undefined) {
      await this.#raise(connection, async ({ position }) => {
        const { evidence } = await this.#compare(connection, new Map(this.#marks))
        return evidence && { ...evidence, position }
      })
      marks = new Map(this.#marks)
      found = await this.#compare(connection, marks)
    }
    await this.#resetMarks(found, marks)
    this.noteEpoch(found)
    this.#epoch = found.epoch
    await this.#addLanes(connection, found.rows)
    await this.#noteVerified(connection, found.start)
  }

  /**
   * Before keys are issued (fence/verification.ts).
   *
   * @throws {UnverifiedServerError} wait for `verifiedByAll`
   */
  requireVerified({ start }: FenceSnapshot): void {
    if (start !== this.#startVerifiedByAll)
      throw new UnverifiedServerError('other processes have not verified this server start')
  }

  /** Resolves when keys may be issued on the server of the last verification. */
  async verifiedByAll(db: Queries): Promise<void> {
    for (;;) {
      const row = await db.one<{ start: string; waits: boolean }>(
        `select server_start as start,
           server_start_noted > clock_timestamp() - make_interval(secs => ${VERIFY_WITHIN_MS / 1000}) and exists (
             select 1 from writers
             where ts > coalesce(server_start_written_ts, 0) - ${WROTE_WITHIN_MS} and not exists (
               select 1 from looks
               where looks.writer_id = writers.writer_id and looks.server_start = stream.server_start)) as waits
         from stream`,
      )
      if (row === undefined) throw new Error('the stream has no row')
      if (!row.waits) {
        this.#startVerifiedByAll = row.start
        return
      }
      await wait(ASK_EVERY_MS)
    }
  }

  /** Raises the fence if a sync token proves a rollback, unless another process has raised it for the same token. */
  async raiseFor(connection: Connection, token: SyncToken): Promise<void> {
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
    evidenceIn: (found: FenceRow) => Promise<Evidence | undefined>,
  ): Promise<void> {
    const { now, onFence, onNewEpoch, forget } = this.#options
    const raised = await connection.transaction((tx) => raiseFence(tx, now(), evidenceIn))
    if (raised === undefined) return
    const { epoch, fence: number, reason, droppedFallbackKeys } = raised
    this.#reported.set(epoch, true)
    onFence({ kind: 'raised', number, reason, droppedFallbackKeys })
    forget()
    onNewEpoch()
  }

  #compare(db: Queries, marks: ReadonlyMap<number, Mark>): Promise<Comparison> {
    const { witness, otherWitnesses } = this.#options
    return compareWitnesses(db, { writerId: witness?.writerId ?? '', marks }, otherWitnesses())
  }

  /** Moves marks of former epochs to the present one. Lanes that are behind continue from the database's count. */
  async #resetMarks({ epoch, rows }: Comparison, marks: ReadonlyMap<number, Mark>): Promise<void> {
    const former = [...marks].filter(([, mark]) => mark.epoch !== epoch)
    if (former.length === 0) return
    for (const [lane, mark] of former) {
      if (this.#marks.get(lane) !== mark) continue
      this.#marks.set(lane, { n: Math.min(mark.n, rows.get(lane) ?? 0), epoch })
    }
    await this.#options.witness?.replace(this.#marks)
  }

  /**
   * Notes a server start, and the state of the database before anything is written after it: a database is restored by
   * starting a server on it.
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

  /** For `verifiedByAll` of other processes: this one has verified the server start, and raised the fence if needed. */
  async #noteVerified(db: Queries, start: string): Promise<void> {
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
    const lanes = Array.from({ length: this.lanes.wanted }, (_, lane) => lane)
    const missing = lanes.filter((lane) => !rows.has(lane))
    if (witness === undefined || missing.length === 0) return
    await db.run(
      `insert into writers (writer_id, lane) select $1, unnest($2::int[]) on conflict do nothing`,
      witness.writerId,
      missing,
    )
  }
}
