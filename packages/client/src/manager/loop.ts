/**
 * The ready-made loop over `fetch`: sync, inbox, then requests until none is due; one request at a time. Failures are
 * retried after a growing, jittered pause, or after the time the server asks for. Every wait ends with the signal.
 */
import { isJsonObject } from '@latchkey/protocol'
import { parseObject } from '../server/answers.ts'
import type { Received } from './inbox.ts'
import type { DecryptedMessage } from './records.ts'
import type { OutgoingRequest, RequestAnswer } from './requests.ts'
import type { KeyManagerStatus } from './status.ts'
import type { SyncTicket } from './sync-answer.ts'

const SYNC_MS = 30_000
/** Time a request may take in addition to the server's long-poll timeout. */
const REQUEST_MS = 30_000
const FIRST_PAUSE_MS = 1_000
const LONGEST_PAUSE_MS = 60_000
/** Limit of a server's `retry-after`. */
const LONGEST_ASKED_MS = 300_000

/** Options of `KeyManager.start`. Required: `baseUrl`, `accessToken`, `onMessages`. */
export type LoopOptions = {
  /** The fetch to use. Default: the global one. */
  readonly fetch?: typeof globalThis.fetch
  /** The homeserver's base URL, without `/_matrix`. */
  readonly baseUrl: string
  readonly accessToken: string
  /** Handles messages. They are deleted when it resolves, and delivered again when it rejects. */
  readonly onMessages: (messages: readonly DecryptedMessage[]) => void | Promise<void>
  /** Receives the whole answer of each sync. */
  readonly onSync?: (answer: Readonly<Record<string, unknown>>) => void | Promise<void>
  /** How long the server may keep a sync open, ms. Default 30 000. */
  readonly syncTimeoutMs?: number
}

/** The part of a `KeyManager` that the loop drives. */
export interface LoopManager {
  readonly since: string | undefined
  status(): Promise<KeyManagerStatus>
  syncStarted(): Promise<SyncTicket>
  receiveSync(answer: unknown, ticket: SyncTicket): Promise<Received>
  unhandledMessages(): Promise<readonly DecryptedMessage[]>
  messagesHandled(): Promise<void>
  outgoingRequests(): Promise<OutgoingRequest[]>
  markRequestAsSent(id: string, answer: RequestAnswer): Promise<void>
}

/** One run of the loop. */
export class Loop {
  readonly #manager: LoopManager
  readonly #options: LoopOptions
  readonly #abort = new AbortController()
  #isHandling = false

  constructor(manager: LoopManager, options: LoopOptions) {
    this.#manager = manager
    this.#options = options
  }

  /** Whether a handler of the app is running. */
  get isHandling(): boolean {
    return this.#isHandling
  }

  stop(): void {
    this.#abort.abort()
  }

  async run(): Promise<void> {
    const { signal } = this.#abort
    try {
      await this.#handle(await this.#manager.unhandledMessages())
      for (let failures = 0, isFirst = true; !signal.aborted; ) {
        const { retryInMs, unusableReason, isTokenRefused } = await this.#manager.status()
        if (unusableReason !== undefined)
          throw new Error(`the account cannot be used any more: ${unusableReason}`)
        if (isTokenRefused) throw new Error('the access token was refused; log in again')
        const longest = this.#options.syncTimeoutMs ?? SYNC_MS
        const openMs = isFirst ? 0 : retryInMs > 0 ? Math.min(retryInMs, longest) : longest
        const { isTaken, waitMs } = await this.#sync(openMs)
        if (isTaken) {
          isFirst = false
          await this.#sendAll()
        }
        if (waitMs === undefined) failures = 0
        else {
          failures++
          const backoff = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(failures - 1, 10))
          // Half of it is random, so that clients do not all return at once after an outage.
          await pause(Math.max(waitMs, backoff * (0.5 + Math.random() / 2)), signal)
        }
      }
    } catch (error) {
      if (!signal.aborted) throw error
    }
  }

  /** Whether the sync was applied, and how long to wait before the next one, ms; undefined: no wait. */
  async #sync(openMs: number): Promise<{ readonly isTaken: boolean; readonly waitMs: number | undefined }> {
    const { since } = this.#manager
    const ticket = await this.#manager.syncStarted()
    const query = new URLSearchParams({
      timeout: String(Math.ceil(openMs)),
      ...(since !== undefined && { since }),
    })
    const path = `/_matrix/client/v3/sync?${query}`
    const begun = performance.now()
    const { signal } = this.#abort
    const {
      status,
      body,
      retryAfterMs = 0,
    } = await request(this.#options, { method: 'GET', path }, openMs, signal)
    if (status === 401) throw new Error('the access token was refused; log in again')
    const next = isJsonObject(body) ? body['next_batch'] : undefined
    if (status !== 200 || !isJsonObject(body) || typeof next !== 'string') {
      return { isTaken: false, waitMs: retryAfterMs }
    }
    const { messages } = await this.#manager.receiveSync(body, ticket)
    await this.#inHandler(() => this.#options.onSync?.(body))
    await this.#handle(messages)
    // A server that answers at once with no changes ignores the long-poll timeout.
    const isIdle = next === since && performance.now() - begun < Math.min(openMs, FIRST_PAUSE_MS)
    return { isTaken: true, waitMs: isIdle ? retryAfterMs : undefined }
  }

  async #handle(messages: readonly DecryptedMessage[]): Promise<void> {
    if (messages.length === 0) return
    await this.#inHandler(() => this.#options.onMessages(messages))
    await this.#manager.messagesHandled()
  }

  async #inHandler(work: () => void | Promise<void>): Promise<void> {
    this.#isHandling = true
    try {
      await work()
    } finally {
      this.#isHandling = false
    }
  }

  /** Terminates: a failed request is not due before its pause is over, and requests are rate-limited. */
  async #sendAll(): Promise<void> {
    for (let due; (due = await this.#manager.outgoingRequests()).length > 0; ) {
      for (const outgoing of due) {
        const answer = await request(this.#options, outgoing, 0, this.#abort.signal)
        await this.#manager.markRequestAsSent(outgoing.id, answer)
      }
    }
  }
}

/** Sends; a network error or timeout is status 0. @throws when the signal aborts it */
async function request(
  { fetch = globalThis.fetch, baseUrl, accessToken }: LoopOptions,
  { method, path, body }: Pick<OutgoingRequest, 'method' | 'path' | 'body'>,
  openMs: number,
  signal: AbortSignal,
): Promise<RequestAnswer> {
  try {
    const response = await fetch(baseUrl.replace(/\/$/, '') + path, {
      method,
      headers: {
        authorization: `Bearer ${accessToken}`,
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(body !== undefined && { body }),
      signal: AbortSignal.any([signal, AbortSignal.timeout(openMs + REQUEST_MS)]),
    })
    const decoded = parseObject(await response.text())
    const inHeader = Number(response.headers.get('retry-after') ?? Number.NaN) * 1_000
    const asked = Number.isFinite(inHeader) ? inHeader : decoded?.['retry_after_ms']
    if (typeof asked !== 'number' || !(asked >= 0)) return { status: response.status, body: decoded }
    // Timers cannot exceed 24 days, and a shorter limit is reasonable anyway.
    return { status: response.status, body: decoded, retryAfterMs: Math.min(asked, LONGEST_ASKED_MS) }
  } catch (error) {
    if (signal.aborted) throw error
    return { status: 0 }
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done)
    if (signal.aborted) done()
  })
}
