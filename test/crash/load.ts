/**
 * Mixed load against one server process: each worker repeats one operation at a time until the server is killed.
 * Answers go into the ledger; a request without an answer is recorded as in doubt.
 */
import { randomInt } from 'node:crypto'
import type { Ledger } from './ledger.ts'
import { type Answer, type Caller, claim, type Device, pick, reset, send, upload } from './operations.ts'

/** The server died before it answered. */
export class Unanswered extends Error {
  override readonly name = 'Unanswered'
}

export class Client implements Caller {
  readonly #url: string
  readonly #onAnswer: () => void

  /** `onAnswer` is called for each answer before it is evaluated. */
  constructor(url: string, onAnswer: () => void = () => {}) {
    this.#url = url
    this.#onAnswer = onAnswer
  }

  async call(method: string, path: string, token?: string, body?: unknown): Promise<Answer> {
    let answer: Answer
    try {
      const response = await fetch(this.#url + path, {
        method,
        headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      })
      answer = { status: response.status, body: (await response.json()) as Record<string, unknown> }
    } catch (cause) {
      throw new Unanswered(`${method} ${path}`, { cause })
    }
    this.#onAnswer()
    if (answer.status !== 200)
      throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`)
    return answer
  }
}

/** Runs the workers until the server is killed. Rejects when an answer is wrong. */
export async function runLoad(client: Client, ledger: Ledger, devices: readonly Device[]): Promise<void> {
  const workers = [
    ...devices.map((device) => () => upload(client, ledger, device)),
    ...devices.slice(0, 2).map((device) => () => reset(client, ledger, device, randomInt(4) === 0)),
    ...Array.from({ length: 6 }, () => () => claim(client, ledger, pick(devices), devices)),
    ...devices.slice(0, 2).map((device) => () => send(client, ledger, device, pick(devices))),
  ]
  await Promise.all(workers.map(untilUnanswered))
}

async function untilUnanswered(work: () => Promise<void>): Promise<void> {
  try {
    for (;;) await work()
  } catch (error) {
    if (!(error instanceof Unanswered)) throw error
  }
}
