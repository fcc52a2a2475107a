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
import { ANSWER_WITHIN_MS, ASK_EVERY_MS, VERIFY_ROUNDS } from '../../fence/verification.ts'
import { unavailable } from '../../matrix-error.ts'
import type { Position } from '../../session.ts'
import { continueFrom, newestSeen, type SyncToken } from '../../sync/token.ts'
import type { Witness } from '../witness.ts'
import { type Comparison, compareWitnesses, type Witnessed } from './compare-witnesses.ts'
import { BACKEND } from './backends.ts'
import { BEGIN, type Connection, type Postgres, type Queries } from './database.ts'
import { FenceLanes } from './fence-lanes.ts'
import { type Evidence, type FenceRow, raiseFence } from './raise-fence.ts'
import {
  DATABASE_NOW,
  endWait,
  noteReturn,
  noteStart,
  noteVerified,
  SERVER_START,
  verifiedStart,
} from './verified-starts.ts'

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
}

/**
 * The lane's row is missing or behind, or epoch and server start are not those of the last verification. The caller
 * verifies the fence and then repeats the write.
 */
export class FenceMismatchError extends Error {}

/** Another process may know of acknowledged writes that this database server lacks. */
export class UnverifiedServerError extends Error {}

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
  /** Set at the end of a verification. */
  #verifiedStart: string | undefined
  /** The last server start that all other processes have verified. */
  #startVerifiedByAll: string | undefined
  /** Rounds that this process has waited for the others on one server start. */
  #rounds = { start: '', count: 0 }
  #waitForAll: Promise<void> | undefined

  constructor(options: FenceOptions) {
    this.#options = options
    this.lanes = new FenceLanes(options.connections)
    this.#marks = new Map(options.witness?.marks)
  }

  /** The first statements of a write transaction in this lane; `readOpening` takes their results. */
  opening(lane: number): string {
    const { witness } = this.#options
    const count =
      witness === undefined
        ? // Only the lock that a raise waits for.
          `lock table writers in row exclusive mode`
        : `update writers set n = n + 1, ts = ${DATABASE_NOW} where writer_id = '${witness.writerId}'
             and lane = ${lane} and n >= ${this.#marks.get(lane)?.n ?? 0} returning n`
    return `${BEGIN}; ${count};
      select epoch, fence as number, fallback_fence as "fallbackNumber", ${SERVER_START} as start, ${BACKEND}
        from stream`
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

  /**
   * After a commit. Resolves when the answer may be sent.
   *
   * @param committingAtMs before the commit, on the clock of `performance.now`
   * @throws {MatrixError} 503
   */
  async acknowledge(lane: number, mark: Mark | undefined, committingAtMs: number): Promise<void> {
    if (mark === undefined) return
    this.#marks.set(lane, mark)
    await this.#options.witness?.record(lane, mark)
    if (performance.now() - committingAtMs > ANSWER_WITHIN_MS)
      throw unavailable('The commit took too long to be confirmed, or this process was stopped meanwhile.')
  }

  /** A process that writes nothing verifies a new start too, because others wait for it. */
  notePolled(
    db: Postgres,
    stream: { readonly epoch: string; readonly fence: number; readonly start: string },
  ): void {
    this.noteEpoch(stream)
    // A failure is repeated with the next poll, because the start stays unverified.
    if (stream.start !== this.#verifiedStart)
      db.withConnection((connection) => this.verify(connection)).catch(() => {})
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
    const { witness } = this.#options
    if (witness?.start !== undefined && witness.start !== found.start) {
      await noteReturn(connection, witness.writerId, found.start)
      found = await this.#compare(connection, marks)
    }
    await noteStart(connection, found.start)
    if (this.#start !== undefined && this.#start !== found.start) this.#options.forget()
    this.#start = found.start
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
    if (witness !== undefined) {
      // First in the witness: what the database has and the witness has not would look like a return.
      await witness.noteStart(found.start)
      await noteVerified(connection, witness.writerId, found.start)
    }
    this.#verifiedStart = found.start
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

  /** Resolves when keys may be issued on the server of the last verification. Claims that wait share the rounds. */
  verifiedByAll(db: Postgres): Promise<void> {
    this.#waitForAll ??= this.#askUntilVerified(db).finally(() => (this.#waitForAll = undefined))
    return this.#waitForAll
  }

  async #askUntilVerified(db: Postgres): Promise<void> {
    for (;;) {
      const { start, verified, waits } = await verifiedStart(db)
      if (verified) {
        this.#startVerifiedByAll = start
        return
      }
      if (this.#rounds.start !== start) this.#rounds = { start, count: 0 }
      if (!waits) await endWait(db, start)
      else if (++this.#rounds.count < VERIFY_ROUNDS) await wait(ASK_EVERY_MS)
      else {
        // Processes with the same directory may have acknowledged writes of the former server since the last look.
        await db.withConnection((connection) => this.verify(connection))
        await endWait(db, start)
      }
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
        : { reason: proof, epochs: [token.epoch], position: newestSeen(token) }
    })
  }

  async #raise(
    connection: Connection,
    evidenceIn: (found: FenceRow) => Promise<Evidence | undefined>,
  ): Promise<void> {
    const { onFence, onNewEpoch, forget } = this.#options
    const raised = await connection.transaction((tx) => raiseFence(tx, evidenceIn))
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
