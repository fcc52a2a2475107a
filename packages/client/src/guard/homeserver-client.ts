/**
 * The guard's own requests, sent with the SDK's token over the given fetch, each with a timeout. They ignore the SDK's
 * abort signal: a started heal is completed.
 */
import { type JsonObject, POOL_PATH, RESET_UNSTABLE_PATH } from '@latchkey/protocol'
import { decodePool, parseObject, type PoolAnswer, type PoolOfAlgorithm } from '../server/answers.ts'
import type { KeyTraffic } from './key-traffic.ts'

export type ServerAnswer = { readonly status: number; readonly body: JsonObject }

/** A pool, with the issued keys of all pages read. */
export type WholePool = PoolAnswer & {
  /** Whether every issued key is included. */
  readonly complete: boolean
}

/** Pages of issued keys read from one pool, 1 000 keys each. */
const MAX_POOL_PAGES = 5
const PAGE_KEYS = 1_000
/** Longer answers are not read: no legitimate answer to these requests is longer. */
const MAX_ANSWER_CHARS = 5_000_000

export class HomeserverClient {
  readonly #fetch: typeof fetch
  readonly #to: KeyTraffic
  readonly #timeoutMs: number

  constructor(fetch: typeof globalThis.fetch, to: KeyTraffic, timeoutMs: number) {
    this.#fetch = fetch
    this.#to = to
    this.#timeoutMs = timeoutMs
  }

  versions(): Promise<ServerAnswer> {
    return this.#call('GET', 'versions')
  }

  whoami(): Promise<ServerAnswer> {
    return this.#call('GET', `${this.#to.version}/account/whoami`)
  }

  upload(body: JsonObject): Promise<ServerAnswer> {
    return this.#call('POST', `${this.#to.version}/keys/upload`, body)
  }

  claim(userId: string, deviceId: string, algorithm: string): Promise<ServerAnswer> {
    return this.#call('POST', `${this.#to.version}/keys/claim`, {
      one_time_keys: { [userId]: { [deviceId]: algorithm } },
    })
  }

  reset(body: JsonObject): Promise<ServerAnswer> {
    return this.#call('POST', RESET_UNSTABLE_PATH, body)
  }

  /** The device's pools on the server. @throws when the server does not return them */
  async pool(): Promise<WholePool> {
    let from = ''
    let whole: PoolAnswer | undefined
    for (let page = 1; ; page++) {
      const { status, body } = await this.#call('GET', `${POOL_PATH}?limit=${PAGE_KEYS}${from}`)
      const answer = status === 200 ? decodePool(body) : undefined
      if (answer === undefined) throw new Error(`GET keys/pool was answered with status ${status}`)
      whole = whole === undefined ? answer : { ...whole, algorithms: withIssued(whole, answer) }
      const complete = answer.nextBatch === undefined
      if (complete || page === MAX_POOL_PAGES) return { ...whole, complete }
      from = `&from=${encodeURIComponent(answer.nextBatch)}`
    }
  }

  async #call(method: 'GET' | 'POST', path: string, body?: JsonObject): Promise<ServerAnswer> {
    const response = await this.#fetch(`${this.#to.baseUrl}/_matrix/client/${path}`, {
      method,
      headers: {
        Authorization: `Bearer ${this.#to.token}`,
        Accept: 'application/json',
        ...(body !== undefined && { 'Content-Type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(this.#timeoutMs),
    })
    const text = await response.text()
    return { status: response.status, body: (text.length <= MAX_ANSWER_CHARS && parseObject(text)) || {} }
  }
}

function withIssued(whole: PoolAnswer, page: PoolAnswer): ReadonlyMap<string, PoolOfAlgorithm> {
  const more = new Map(whole.algorithms)
  for (const [algorithm, { issued }] of page.algorithms) {
    const known = more.get(algorithm)
    if (known !== undefined) more.set(algorithm, { ...known, issued: [...known.issued, ...issued] })
  }
  return more
}
