/**
 * The fence of a running store: its numbers in memory, the counter that every commit bumps, and the witness that has the
 * last acknowledged one outside of the database. Only `raise` changes the numbers. Rule: fence/judge.ts.
 */
import type { FenceEvent, OnFence } from '../../fence/events.ts'
import type { StreamEnd, SyncToken } from '../../sync/token.ts'
import type { Witness } from '../witness.ts'
import { writeCertainWriter } from './certain.ts'
import type { Database } from './database.ts'
import {
  countWrite,
  type Evidence,
  type FenceNumbers,
  formerEnd,
  LANE,
  raiseFence,
  readFence,
} from './fence-rows.ts'
import type { Positions } from './positions.ts'

export type FenceOptions = {
  /** Undefined: writes are not counted. */
  readonly witness: Witness | undefined
  /** Milliseconds since 1970. */
  readonly now: () => number
  readonly onFence: OnFence
}

export class Fence {
  readonly #db: Database
  readonly #positions: Positions
  readonly #options: FenceOptions
  #numbers: FenceNumbers
  /** The number of the last write. */
  #written = 0
  /** What the transaction that is under way will have to tell. */
  #events: FenceEvent[] = []

  constructor(db: Database, positions: Positions, options: FenceOptions) {
    this.#db = db
    this.#positions = positions
    this.#options = options
    this.#numbers = readFence(db)
  }

  get epoch(): string {
    return this.#numbers.epoch
  }

  get number(): number {
    return this.#numbers.number
  }

  /** Devices below it lose their fallback keys too. */
  get fallbackNumber(): number {
    return this.#numbers.fallback
  }

  /** Where the stream ends, and where the token's epoch did. */
  endOfStream(token?: SyncToken): StreamEnd {
    const { epoch } = this.#numbers
    const isFormer = token !== undefined && token.epoch !== epoch
    return {
      epoch,
      position: this.#positions.last,
      formerEnd: isFormer ? formerEnd(this.#db, token.epoch) : undefined,
    }
  }

  /** Ends the epoch because of a token. Inside a transaction. */
  raise(reason: string, token: SyncToken): void {
    const evidence: Evidence = { reason, epochs: [token.epoch], position: token.position }
    const { droppedFallbackKeys, ...numbers } = raiseFence(
      this.#db,
      this.#positions,
      evidence,
      this.#options.now(),
    )
    writeCertainWriter(this.#db, this.#options.witness?.writerId)
    this.#numbers = numbers
    this.#events.push({ kind: 'raised', number: numbers.number, reason, droppedFallbackKeys })
  }

  /** Before a commit, inside the transaction. */
  count(): void {
    const { witness, now } = this.#options
    if (witness !== undefined) this.#written = countWrite(this.#db, witness.writerId, now())
  }

  /** Right after a commit: resolves when it may be acknowledged. Undefined: now. */
  record(): Promise<void> | undefined {
    return this.#options.witness?.record(LANE, { n: this.#written, epoch: this.epoch })
  }

  /** Before a commit is begun: rejects while it could not be acknowledged. */
  ready(): Promise<void> | undefined {
    return this.#options.witness?.ready()
  }

  /** After a commit. */
  emit(): void {
    const events = this.#events
    this.#events = []
    for (const event of events) this.#options.onFence(event)
  }

  /** After a raise was undone. */
  reload(): void {
    this.#numbers = readFence(this.#db)
    this.#events = []
  }
}
