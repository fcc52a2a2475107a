/**
 * A request of the SDK: reads its body, sends it unchanged or with another body. The last outcome is kept, so a fault
 * of the guard never sends a request twice or loses its answer.
 */
import { type Input, isRequest } from './key-traffic.ts'

export class SdkRequest {
  readonly #fetch: typeof fetch
  readonly #input: Input
  readonly #init: RequestInit | undefined
  #text: string | undefined
  #last: { readonly response: Response } | { readonly error: unknown } | undefined

  constructor(fetch: typeof globalThis.fetch, input: Input, init: RequestInit | undefined) {
    this.#fetch = fetch
    this.#input = input
    this.#init = init
  }

  /** The body. A stream can be read only once, so it is sent as this text afterwards. */
  async text(): Promise<string> {
    this.#text ??= await this.#read()
    return this.#text
  }

  /** Sends the request exactly as the SDK gave it. */
  send(): Promise<Response> {
    if (this.#init?.body instanceof ReadableStream && this.#text !== undefined) {
      return this.sendText(this.#text)
    }
    return this.#note(() => this.#fetch(this.#input, this.#init))
  }

  /** Sends the request with another body and otherwise unchanged. */
  sendText(body: string): Promise<Response> {
    const input = this.#input
    if (!isRequest(input)) return this.#note(() => this.#fetch(input, { ...this.#init, body }))
    if (input instanceof Request) {
      return this.#note(() => this.#fetch(new Request(input, { ...this.#init, body })))
    }
    // A Request of another realm cannot be copied by this realm's class.
    const { url, method, headers, signal, credentials, mode, cache, redirect, referrer, keepalive } = input
    const same = { method, headers, signal, credentials, mode, cache, redirect, referrer, keepalive }
    const given = Object.fromEntries(Object.entries(same).filter(([, value]) => value !== undefined))
    return this.#note(() => this.#fetch(url, { ...given, ...this.#init, body }))
  }

  /** The last answer or failure; sends the request if that has not happened yet. */
  outcome(): Promise<Response> {
    if (this.#last === undefined) return this.send()
    return 'response' in this.#last ? Promise.resolve(this.#last.response) : Promise.reject(this.#last.error)
  }

  get wasSent(): boolean {
    return this.#last !== undefined
  }

  /** Whether an error is the failure of the request itself, not of the guard. */
  failedWith(error: unknown): boolean {
    return this.#last !== undefined && 'error' in this.#last && this.#last.error === error
  }

  async #read(): Promise<string> {
    const { body } = this.#init ?? {}
    if (typeof body === 'string') return body
    if (body === undefined || body === null) {
      return isRequest(this.#input) ? this.#input.clone().text() : ''
    }
    return new Response(body).text()
  }

  async #note(send: () => Promise<Response>): Promise<Response> {
    try {
      const response = await send()
      this.#last = { response }
      return response
    } catch (error) {
      this.#last = { error }
      throw error
    }
  }
}
