/**
 * The network between a client and its server with scripted faults: the next fault of a path applies to the next
 * request to that path, so a scenario controls what happens and when. Requests without a fault pass.
 */
import type { AnyJson, Fetch } from '@latchkey/testing/matrix-session.ts'

export type Exchange = {
  readonly path: string
  readonly sent: AnyJson
  /** 0 if no answer arrived. */
  readonly status: number
  readonly answer: AnyJson
}

/** A fault of one request; `send` passes the request to the server. */
type Fault = (send: () => Promise<Response>, sent: AnyJson) => Promise<Response>

export type Held = {
  /** Resolves when the server has answered; the client has not received the answer. */
  readonly answered: Promise<void>
  release(): void
}

/** Changes an answer's JSON in place. */
export type Rewrite = (answer: AnyJson) => void

export class FaultyNetwork {
  /** Requests that reached the server, in the order of its answers. */
  readonly exchanges: Exchange[] = []
  readonly #faults: { readonly path: string; readonly fault: Fault }[] = []
  readonly #rewrites = new Map<string, Rewrite>()
  readonly #refused = new Set<string>()
  readonly #beforeEach: () => void

  /** @param beforeEach called before each request is sent */
  constructor(beforeEach: () => void = () => undefined) {
    this.#beforeEach = beforeEach
  }

  /** The client's `fetch`. */
  readonly fetch: Fetch = async (input, init) => {
    this.#beforeEach()
    const path = pathOf(input)
    if ([...this.#refused].some((end) => path.endsWith(end))) return unrecognized()
    const send = (): Promise<Response> => this.#send(path, input, init)
    const next = this.#faults.findIndex((fault) => path.endsWith(fault.path))
    const [hit] = next === -1 ? [] : this.#faults.splice(next, 1)
    return hit === undefined ? send() : hit.fault(send, sentBy(init))
  }

  /** The server executes the next request, but its answer is lost. */
  loseAnswer(path: string): void {
    this.#add(path, async (send) => {
      await send()
      throw lost()
    })
  }

  /** The next request does not reach the server. */
  cut(path: string): void {
    this.#add(path, () => Promise.reject(lost()))
  }

  /** Runs `work` right before the next request reaches the server. */
  precede(path: string, work: (sent: AnyJson) => Promise<unknown>): void {
    this.#add(path, async (send, sent) => {
      await work(sent)
      return send()
    })
  }

  /** The server executes the next request; its answer is held until it is released. */
  hold(path: string): Held {
    const answered = Promise.withResolvers<void>()
    const released = Promise.withResolvers<void>()
    this.#add(path, async (send) => {
      const response = await send()
      answered.resolve()
      await released.promise
      return response
    })
    return { answered: answered.promise, release: released.resolve }
  }

  /** Repeats the next answer: the request after it gets the same answer and does not reach the server. */
  repeatAnswer(path: string): void {
    this.#add(path, async (send) => {
      const response = await send()
      const copy = response.clone()
      this.#faults.unshift({ path, fault: () => Promise.resolve(copy) })
      return response
    })
  }

  /** Calling the result sends the next request to the server again, as a proxy's late duplicate. */
  duplicateLater(path: string): () => Promise<void> {
    let again = (): Promise<unknown> => Promise.reject(new Error(`nothing was sent to ${path} yet`))
    this.#add(path, (send) => {
      again = send
      return send()
    })
    return async () => {
      await again()
    }
  }

  /** Rewrites every answer of the path until `endRewrite`. */
  rewrite(path: string, rewrite: Rewrite): void {
    this.#rewrites.set(path, rewrite)
  }

  endRewrite(path: string): void {
    this.#rewrites.delete(path)
  }

  /** From now on the path is answered as unknown. */
  refuse(path: string): void {
    this.#refused.add(path)
  }

  /** Requests of a path that reached the server. */
  to(path: string): readonly Exchange[] {
    return this.exchanges.filter((exchange) => exchange.path.endsWith(path))
  }

  #add(path: string, fault: Fault): void {
    this.#faults.push({ path, fault })
  }

  async #send(path: string, input: string | URL | Request, init?: RequestInit): Promise<Response> {
    const response = await fetch(input, init)
    const text = await response.text()
    const answer: AnyJson = text.startsWith('{') ? JSON.parse(text) : {}
    this.exchanges.push({
      path,
      sent: sentBy(init),
      status: response.status,
      answer: structuredClone(answer),
    })
    const rewrites = [...this.#rewrites].filter(([end]) => path.endsWith(end))
    for (const [, rewrite] of rewrites) rewrite(answer)
    const { status, headers } = response
    const body = rewrites.length === 0 ? text : JSON.stringify(answer)
    return new Response(body, { status, headers: contentHeaders(headers) })
  }
}

export const UPLOAD = '/keys/upload'
export const SYNC = '/sync'
export const RESET = '/keys/reset'

/** A server's answer to an unknown path. */
function unrecognized(): Response {
  return Response.json({ errcode: 'M_UNRECOGNIZED', error: 'Unrecognized request' }, { status: 404 })
}

/** The error that `fetch` throws for a lost connection. */
function lost(): TypeError {
  return new TypeError('fetch failed')
}

/** Whether an error is a lost connection and not a fault of the client. */
export function isLost(error: unknown): boolean {
  return error instanceof TypeError && error.message === 'fetch failed'
}

function sentBy(init: RequestInit | undefined): AnyJson {
  return typeof init?.body === 'string' ? JSON.parse(init.body) : undefined
}

function pathOf(input: string | URL | Request): string {
  return new URL(input instanceof Request ? input.url : input).pathname
}

/** Headers without those that describe the encoding on the wire. */
function contentHeaders(headers: Headers): Headers {
  const kept = new Headers(headers)
  for (const name of ['content-length', 'content-encoding', 'transfer-encoding']) kept.delete(name)
  return kept
}
