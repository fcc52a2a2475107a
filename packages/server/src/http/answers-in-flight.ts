/**
 * Bounds the bytes of answers that clients have not taken yet, in total and per user: a client that never reads would
 * otherwise hold them as long as its connection is open. When the total is full, the user with the most bytes gives
 * way, so that no account can keep others from their answers. A client that reads too slowly is cut off. Issue 11, C3.
 */
import { limitExceeded, type MatrixError } from '../matrix-error.ts'
import type { UserRef } from '../session.ts'

export type AnswerLimits = {
  /** Bytes of all answers. */
  readonly answerBytesInFlight: number
  /** Bytes of one user's answers; a single answer may be larger. All anonymous requests together are one user. */
  readonly answerBytesPerUser: number
  /** Time without progress after which an answer is cut off. */
  readonly answerTimeoutMs: number
}

export type CutCause = 'stalled' | 'slow' | 'budget'

export type NewAnswer = {
  /** Undefined: the request had no session. */
  readonly user: UserRef | undefined
  readonly bytes: number
  /** Whether the request may be refused now, because repeating it is harmless. */
  readonly repeatable: boolean
  /** Whether the answer is being written. False while earlier answers of its connection are pending. */
  readonly isBeingWritten: () => boolean
  /** Closes the connection. */
  readonly cutOff: (cause: CutCause) => void
}

type Held = NewAnswer & { sinceMs: number }

/** Average rate of the slowest client that receives its answers; the slowest mobile networks provide more. */
const MIN_BYTES_PER_SECOND = 1024
/** Delay that a refused client is asked for. */
const RETRY_AFTER_MS = 5_000

export class AnswersInFlight {
  readonly #limits: AnswerLimits
  readonly #now: () => number
  readonly #byUser = new Map<UserRef | undefined, UserAnswers>()
  #bytes = 0

  /** @param now milliseconds of a clock that only goes forwards */
  constructor(limits: AnswerLimits, now: () => number) {
    this.#limits = limits
    this.#now = now
  }

  /** Bytes of all answers in flight. */
  get bytes(): number {
    return this.#bytes
  }

  /**
   * Refuses a request before it is run, when its answer would not fit.
   *
   * @param bytes lower bound of the answer where it is known
   * @throws {MatrixError} 429
   */
  requireRoom(user: UserRef | undefined, bytes: number): void {
    if (user !== undefined && !this.#fitsUser(user, bytes)) throw tooManyUnread()
  }

  /**
   * Counts an answer until the returned function is called, which may happen more than once.
   *
   * @throws {MatrixError} 429 when the request is repeatable and its answer does not fit.
   */
  hold(answer: NewAnswer): () => void {
    const { user, bytes, repeatable } = answer
    if (repeatable) this.requireRoom(user, bytes)
    if (user === undefined) while (!this.#fitsUser(user, bytes)) this.#cutOldest(user)
    while (this.#bytes + bytes > this.#limits.answerBytesInFlight && this.#bytes > 0) {
      const [heaviest, most] = this.#heaviest()
      if (repeatable && most <= this.#bytesOf(user) + bytes) throw tooManyUnread()
      this.#cutOldest(heaviest)
    }
    const held: Held = { ...answer, sinceMs: this.#now() }
    const ofUser = this.#byUser.get(user) ?? { bytes: 0, answers: new Set() }
    this.#byUser.set(user, ofUser)
    ofUser.answers.add(held)
    ofUser.bytes += bytes
    this.#bytes += bytes
    return () => this.#release(held)
  }

  /** Cuts off the answers that take longer than the slowest client needs. To be called every few seconds. */
  cutSlow(): void {
    const now = this.#now()
    for (const { answers } of [...this.#byUser.values()]) {
      for (const held of answers) {
        if (!held.isBeingWritten()) held.sinceMs = now
        else if (now - held.sinceMs > this.#limits.answerTimeoutMs + slowestMs(held.bytes))
          this.#cut(held, 'slow')
      }
    }
  }

  #fitsUser(user: UserRef | undefined, bytes: number): boolean {
    const held = this.#bytesOf(user)
    return held === 0 || held + bytes <= this.#limits.answerBytesPerUser
  }

  #bytesOf(user: UserRef | undefined): number {
    return this.#byUser.get(user)?.bytes ?? 0
  }

  #heaviest(): readonly [user: UserRef | undefined, bytes: number] {
    let heaviest: readonly [UserRef | undefined, number] = [undefined, 0]
    for (const [user, { bytes }] of this.#byUser) if (bytes > heaviest[1]) heaviest = [user, bytes]
    return heaviest
  }

  #cutOldest(user: UserRef | undefined): void {
    const [oldest] = this.#byUser.get(user)?.answers ?? []
    if (oldest !== undefined) this.#cut(oldest, 'budget')
  }

  #cut(held: Held, cause: CutCause): void {
    this.#release(held)
    held.cutOff(cause)
  }

  #release(held: Held): void {
    const ofUser = this.#byUser.get(held.user)
    if (ofUser?.answers.delete(held) !== true) return
    this.#bytes -= held.bytes
    ofUser.bytes -= held.bytes
    if (ofUser.answers.size === 0) this.#byUser.delete(held.user)
  }
}

type UserAnswers = { bytes: number; readonly answers: Set<Held> }

function slowestMs(bytes: number): number {
  return (bytes / MIN_BYTES_PER_SECOND) * 1000
}

function tooManyUnread(): MatrixError {
  return limitExceeded(
    'This account has too many answers that its clients have not read yet; read them, then try again.',
    RETRY_AFTER_MS,
  )
}
