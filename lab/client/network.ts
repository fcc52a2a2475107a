/**
 * The way between a client and its server, with faults made to order: the next request of a path is hit by the next
 * fault that was set for it, so a scenario decides exactly what happens, and when. What no fault is set for passes.
 */
import type { AnyJson, Fetch } from '@latchkey/testing/matrix-session.ts'

export type Exchange = {
  readonly path: string
  readonly sent: AnyJson
  /** 0 where nothing came back. */
  readonly status: number
  readonly answer: AnyJson
}

/** What happens to one request; `send` brings it to the server. */
type Fault = (send: () => Promise<Response>, sent: AnyJson) => Promise<Response>

export type Held = {
  /** The server has answered, and the client does not know. */
  readonly answered: Promise<void>
  release(): void
}

/** Changes an answer's JSON in place. */
export type Rewrite = (answer: AnyJson) => void

export class FaultyNetwork {
  /** What reached the server, in the order in which it answered. */
  readonly exchanges: Exchange[] = []
  readonly #faults: { readonly path: string; readonly fault: Fault }[] = []
  readonly #rewrites = new Map<string, Rewrite>()
  readonly #refused = new Set<string>()
  readonly #beforeEach: () => void

  /** @param beforeEach called before each request leaves */
  constructor(beforeEach: () => void = () => undefined) {
    this.#beforeEach = beforeEach
  }

  /** To be given to a client as its `fetch`. */
  readonly fetch: Fetch = async (input, init) => {
    this.#beforeEach()
    const path = pathOf(input)
    if ([...this.#refused].some((end) => path.endsWith(end))) return unrecognized()
    const send = (): Promise<Response> => this.#send(path, input, init)
    const next = this.#faults.findIndex((fault) => path.endsWith(fault.path))
    const [hit] = next === -1 ? [] : this.#faults.splice(next, 1)
    return hit === undefined ? send() : hit.fault(send, sentBy(init))
  }

  /** The next request gets to the server and is carried out; its answer is lost. */
  loseAnswer(path: string): void {
    this.#add(path, async (send) => {
      await send()
      throw lost()
    })
  }

  /** The next request does not get to the server. */
  cut(path: string): void {
    this.#add(path, () => Promise.reject(lost()))
  }

  /** Something else happens at the server right before the next request arrives there. */
  precede(path: string, work: (sent: AnyJson) => Promise<unknown>): void {
    this.#add(path, async (send, sent) => {
      await work(sent)
      return send()
    })
  }

  /** The next request is carried out; its answer arrives when it is released, or never. */
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

  /** The next answer comes twice: the request after it gets the same again and does not reach the server. */
  repeatAnswer(path: string): void {
    this.#add(path, async (send) => {
      const response = await send()
      const copy = response.clone()
      this.#faults.unshift({ path, fault: () => Promise.resolve(copy) })
      return response
    })
  }

  /** The next request reaches the server a second time when the result is called: a proxy's late duplicate. */
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

  /** Every answer of the path is changed, until `endRewrite`. */
  rewrite(path: string, rewrite: Rewrite): void {
    this.#rewrites.set(path, rewrite)
  }

  endRewrite(path: string): void {
    this.#rewrites.delete(path)
  }

  /** The path does not exist, from now on. */
  refuse(path: string): void {
    this.#refused.add(path)
  }

  /** What reached the server on a path. */
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

/** How a server answers a path that it does not know. */
function unrecognized(): Response {
  return Response.json({ errcode: 'M_UNRECOGNIZED', error: 'Unrecognized request' }, { status: 404 })
}

/** What `fetch` throws when a connection ends early. */
function lost(): TypeError {
  return new TypeError('fetch failed')
}

/** Whether a client met a lost connection, and not a fault of its own. */
export function isLost(error: unknown): boolean {
  return error instanceof TypeError && error.message === 'fetch failed'
}

function sentBy(init: RequestInit | undefined): AnyJson {
  return typeof init?.body === 'string' ? JSON.parse(init.body) : undefined
}

function pathOf(input: string | URL | Request): string {
  return new URL(input instanceof Request ? input.url : input).pathname
}

/** Without what described the bytes on the wire. */
function contentHeaders(headers: Headers): Headers {
  const kept = new Headers(headers)
  for (const name of ['content-length', 'content-encoding', 'transfer-encoding']) kept.delete(name)
  return kept
}
