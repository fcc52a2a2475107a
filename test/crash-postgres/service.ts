/**
 * The servers of a scenario as clients see them: any server serves any request, and each request ends in time with 200
 * or with 503 and Retry-After. Any other result fails the test.
 */
import { setImmediate as nextTurn, setTimeout as wait } from 'node:timers/promises'
import { type Answer, type Caller, pick } from '../crash/operations.ts'

/** The request was refused, or its server died: it is unknown whether it was executed. */
export class InDoubt extends Error {
  override readonly name = 'InDoubt'
}

/** Longer than all time limits of one request together. */
const ANSWER_WITHIN_MS = 60_000
/** Shorter than Retry-After, as some clients do not respect it. */
const RETRY_AFTER_MS = 50

export type Tally = { answered: number; refused: number; unanswered: number }

export class Service implements Caller {
  readonly #urls: () => readonly string[]
  readonly #serversDie: boolean
  readonly #onAnswer: () => void
  readonly #underWay = new Set<Promise<Answer>>()
  #era = 0
  readonly tally: Tally = { answered: 0, refused: 0, unanswered: 0 }

  /** If servers do not die, every request must have an answer. `onAnswer` is called for each 200. */
  constructor(urls: () => readonly string[], serversDie: boolean, onAnswer: () => void = () => {}) {
    this.#urls = urls
    this.#serversDie = serversDie
    this.#onAnswer = onAnswer
  }

  /** @throws {InDoubt} when it was refused or lost with its server. */
  async call(...request: Parameters<Caller['call']>): Promise<Answer> {
    const answer = this.#ask(...request)
    this.#underWay.add(answer)
    try {
      return await answer
    } finally {
      this.#underWay.delete(answer)
    }
  }

  /** Resolves when all pending requests have ended and their callers have been notified. */
  async settled(): Promise<void> {
    await Promise.allSettled([...this.#underWay])
    await nextTurn()
  }

  /** Call when the database was replaced: requests that were refused before are not retried. */
  databaseReplaced(): void {
    this.#era++
  }

  async #ask(method: string, path: string, token?: string, body?: unknown): Promise<Answer> {
    const what = `${method} ${path}`
    const response = await this.#send(method, path, token, body)
    const text = await response.text().catch((cause) => this.#lost(what, cause))
    if (response.status === 200) {
      this.tally.answered++
      this.#onAnswer()
      return { status: 200, body: JSON.parse(text) }
    }
    if (response.status !== 503) throw new Error(`${what}: ${response.status} ${text}`)
    if (!(Number(response.headers.get('retry-after')) >= 1))
      throw new Error(`${what}: 503 without Retry-After: ${text}`)
    this.tally.refused++
    throw new InDoubt(`${what}: ${text}`)
  }

  /** Retries a repeatable request until it is answered or `givesUp` returns true. */
  retrying(givesUp: () => boolean): Caller {
    return {
      call: async (...request) => {
        const era = this.#era
        for (let attempt = 0; ; attempt++) {
          try {
            const answer = await this.call(...request)
            // The first attempt may have been executed in the replaced database.
            if (attempt > 0 && era !== this.#era) throw new InDoubt('retried after the database was replaced')
            return answer
          } catch (error) {
            if (!(error instanceof InDoubt) || givesUp() || era !== this.#era) throw error
            await wait(RETRY_AFTER_MS)
          }
        }
      },
    }
  }

  async #send(method: string, path: string, token?: string, body?: unknown): Promise<Response> {
    try {
      return await fetch(pick(this.#urls()) + path, {
        method,
        headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
        ...(body !== undefined && { body: JSON.stringify(body) }),
        signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
      })
    } catch (cause) {
      return this.#lost(`${method} ${path}`, cause)
    }
  }

  #lost(what: string, cause: unknown): never {
    if (cause instanceof Error && cause.name === 'TimeoutError')
      throw new Error(`${what}: no answer within ${ANSWER_WITHIN_MS} ms`, { cause })
    if (!this.#serversDie) throw new Error(`${what}: the server is running and did not answer`, { cause })
    this.tally.unanswered++
    throw new InDoubt(what, { cause })
  }
}

/** Repeats `work` until `stopped`; ignores requests in doubt. */
export async function untilStopped(stopped: () => boolean, work: () => Promise<void>): Promise<void> {
  while (!stopped()) {
    try {
      await work()
    } catch (error) {
      if (!(error instanceof InDoubt)) throw error
      await wait(RETRY_AFTER_MS)
    }
  }
}
