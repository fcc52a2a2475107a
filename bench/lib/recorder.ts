/** Sends requests to a fleet and appends each with its answer to a history file. */
import { createWriteStream, type WriteStream } from 'node:fs'
import { open } from 'node:fs/promises'
import type { Fleet } from './fleet.ts'
import type { Exchange } from './history.ts'

/** A server that does not answer for this time counts as dead. */
const GIVE_UP_MS = 60_000

export type Reply = { readonly status: number; readonly body: Record<string, unknown> }

export type Ask = {
  readonly method: string
  readonly path: string
  readonly token?: string | undefined
  readonly body?: unknown
}

export class Recorder {
  readonly #fleet: Fleet
  readonly #random: () => number
  readonly #file: WriteStream
  #moment = 0
  #requests = 0
  #unanswered = 0
  #unavailable = 0

  constructor(path: string, fleet: Fleet, random: () => number) {
    this.#fleet = fleet
    this.#random = random
    this.#file = createWriteStream(path)
  }

  get counts(): { readonly requests: number; readonly unanswered: number; readonly unavailable: number } {
    return { requests: this.#requests, unanswered: this.#unanswered, unavailable: this.#unavailable }
  }

  /** Undefined: no answer arrived. */
  async send({ method, path, token, body }: Ask): Promise<Reply | undefined> {
    const { process, url } = await this.#fleet.pick(this.#random)
    const text = body === undefined ? undefined : JSON.stringify(body)
    const request = {
      n: this.#requests++,
      begin: ++this.#moment,
      process,
      method,
      path: `/_matrix/client/${path}`,
      ...(token !== undefined && { token }),
      ...(text !== undefined && { body: text }),
    }
    try {
      const response = await fetch(url + request.path, {
        method,
        headers: {
          ...(token !== undefined && { authorization: `Bearer ${token}` }),
          ...(text !== undefined && { 'content-type': 'application/json' }),
        },
        ...(text !== undefined && { body: text }),
        signal: AbortSignal.timeout(GIVE_UP_MS),
      })
      const answer = await response.text()
      const { status } = response
      if (status === 503) this.#unavailable++
      this.#append({ ...request, end: ++this.#moment, status, answer })
      return { status, body: JSON.parse(answer) as Record<string, unknown> }
    } catch {
      this.#unanswered++
      this.#append(request)
      return undefined
    }
  }

  #append(exchange: Exchange): void {
    this.#file.write(`${JSON.stringify(exchange)}\n`)
  }

  async close(): Promise<void> {
    await new Promise((resolve) => this.#file.end(resolve))
  }
}

/** Reads a recorded history line by line. */
export async function* readExchanges(path: string): AsyncGenerator<Exchange> {
  await using file = await open(path)
  for await (const line of file.readLines()) yield JSON.parse(line) as Exchange
}
