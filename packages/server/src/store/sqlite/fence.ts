/**
 * The fence of a running store: its numbers in memory, the counter that grows with every commit, and the witness, which
 * has the last acknowledged count outside the database. Only `raise` changes the numbers. Rule: fence/judge.ts.
 */
import type { FenceEvent, OnFence } from '../../fence/events.ts'
import { newestSeen, type StreamEnd, type SyncToken } from '../../sync/token.ts'
import type { Witness } from '../witness.ts'
import type { Reader, Transaction } from './database.ts'
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
import { writeTrustedWriter } from './trusted-position.ts'

export type FenceOptions = {
  /** Undefined: writes are not counted. */
  readonly witness: Witness | undefined
  /** Milliseconds since 1970. */
  readonly now: () => number
  readonly onFence: OnFence
}

export class Fence {
  readonly #db: Reader
  readonly #positions: Positions
  readonly #options: FenceOptions
  #numbers: FenceNumbers
  /** The number of the last write. */
  #written = 0
  /** Events of the running transaction, emitted after its commit. */
  #events: FenceEvent[] = []

  constructor(db: Reader, positions: Positions, options: FenceOptions) {
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

  /** Devices with a lower number lose their fallback keys too. */
  get fallbackNumber(): number {
    return this.#numbers.fallback
  }

  /** The end of the stream, and the end of the token's epoch. */
  endOfStream(token?: SyncToken): StreamEnd {
    const { epoch } = this.#numbers
    const isFormer = token !== undefined && token.epoch !== epoch
    return {
      epoch,
      position: this.#positions.last,
      formerEnd: isFormer ? formerEnd(this.#db, token.epoch) : undefined,
    }
  }

  /** Ends the epoch because of a token. */
  raise(tx: Transaction, reason: string, token: SyncToken): void {
    const evidence: Evidence = { reason, epochs: [token.epoch], position: newestSeen(token) }
    const { droppedFallbackKeys, ...numbers } = raiseFence(tx, this.#positions, evidence, this.#options.now())
    writeTrustedWriter(tx, this.#options.witness?.writerId)
    this.#numbers = numbers
    this.#events.push({ kind: 'raised', number: numbers.number, reason, droppedFallbackKeys })
  }

  /** Counts the write, before its commit. */
  count(tx: Transaction): void {
    const { witness, now } = this.#options
    if (witness !== undefined) this.#written = countWrite(tx, witness.writerId, now())
  }

  /** Records a commit in the witness: resolves when the commit may be acknowledged. Undefined: now. */
  record(): Promise<void> | undefined {
    return this.#options.witness?.record(LANE, { n: this.#written, epoch: this.epoch })
  }

  /** Before a transaction: rejects while the witness could not record it. */
  ready(): Promise<void> | undefined {
    return this.#options.witness?.ready()
  }

  /** Emits the events of a transaction after its commit. */
  emit(): void {
    const events = this.#events
    this.#events = []
    for (const event of events) this.#options.onFence(event)
  }

  /** After a rollback, which may have undone a raise. */
  reload(): void {
    this.#numbers = readFence(this.#db)
    this.#events = []
  }
}
