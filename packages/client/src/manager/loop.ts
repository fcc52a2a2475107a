/**
 * The ready-made loop over `fetch`: sync, inbox, then requests until none is due; never two requests at once. What fails
 * is tried again after a growing, jittered pause, or after what the server asks for. Every wait ends with the signal.
 */
import { isJsonObject } from '@latchkey/protocol'
import { parseObject } from '../server/answers.ts'
import type { KeyManager, RequestAnswer } from './key-manager.ts'
import type { DecryptedMessage } from './records.ts'
import type { OutgoingRequest } from './requests.ts'

const SYNC_MS = 30_000
/** What a request may take beyond the time that the server may keep a sync open. */
const REQUEST_MS = 30_000
const FIRST_PAUSE_MS = 1_000
const LONGEST_PAUSE_MS = 60_000

export type LoopOptions = {
  readonly fetch?: typeof globalThis.fetch
  /** The homeserver's base URL, without `/_matrix`. */
  readonly baseUrl: string
  readonly accessToken: string
  /** Handles messages; they are forgotten when it resolves, and come again when it does not. */
  readonly onMessages: (messages: readonly DecryptedMessage[]) => void | Promise<void>
  /** The whole answer of each sync, for what else the app wants of it. */
  readonly onSync?: (answer: Readonly<Record<string, unknown>>) => void | Promise<void>
  /** How long the server may keep a sync open, ms. Default 30 000. */
  readonly syncTimeoutMs?: number
}

/** Runs until the signal. */
export async function runLoop(manager: KeyManager, options: LoopOptions, signal: AbortSignal): Promise<void> {
  try {
    await handle(manager, options, await manager.unhandledMessages())
    for (let failures = 0, isFirst = true; !signal.aborted; ) {
      const { retryInMs, dead, isTokenEnded } = await manager.status()
      if (dead !== undefined) throw new Error(`the device cannot be used any more: ${dead}`)
      if (isTokenEnded) throw new Error('the access token was refused; log in anew')
      const longest = options.syncTimeoutMs ?? SYNC_MS
      const openMs = isFirst ? 0 : retryInMs > 0 ? Math.min(retryInMs, longest) : longest
      const waitMs = await syncOnce(manager, options, openMs, signal)
      if (waitMs === undefined) {
        failures = 0
        isFirst = false
        await sendAll(manager, options, signal)
      } else {
        failures++
        const backoff = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(failures - 1, 10))
        // Half of it by chance, so that the clients of a server that comes back do not all come at once.
        await pause(Math.max(waitMs, backoff * (0.5 + Math.random() / 2)), signal)
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

/** Returns undefined when the sync was taken in, otherwise how long the server asks to wait, ms. */
async function syncOnce(
  manager: KeyManager,
  options: LoopOptions,
  openMs: number,
  signal: AbortSignal,
): Promise<number | undefined> {
  const { since } = manager
  const ticket = await manager.syncStarted()
  const query = new URLSearchParams({
    timeout: String(Math.ceil(openMs)),
    ...(since !== undefined && { since }),
  })
  const answer = await request(
    options,
    { method: 'GET', path: `/_matrix/client/v3/sync?${query}` },
    openMs,
    signal,
  )
  if (answer.status === 401) throw new Error('the access token was refused; log in anew')
  if (answer.status !== 200 || !isJsonObject(answer.body)) return answer.retryAfterMs ?? 0
  const { messages } = await manager.receiveSync(answer.body, ticket)
  await options.onSync?.(answer.body)
  await handle(manager, options, messages)
  return undefined
}

async function handle(
  manager: KeyManager,
  { onMessages }: LoopOptions,
  messages: readonly DecryptedMessage[],
): Promise<void> {
  if (messages.length === 0) return
  await onMessages(messages)
  await manager.messagesHandled()
}

/** A request that failed is not due before its pause is over, so this ends. */
async function sendAll(manager: KeyManager, options: LoopOptions, signal: AbortSignal): Promise<void> {
  for (let due; (due = await manager.outgoingRequests()).length > 0; ) {
    for (const outgoing of due) {
      await manager.markRequestAsSent(outgoing.id, await request(options, outgoing, 0, signal))
    }
  }
}

/** Sends; a network error or a time-out is status 0. @throws when the signal ended it */
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
    const inBody = decoded?.['retry_after_ms']
    const retryAfterMs = Number.isFinite(inHeader)
      ? inHeader
      : typeof inBody === 'number'
        ? inBody
        : undefined
    return { status: response.status, body: decoded, ...(retryAfterMs !== undefined && { retryAfterMs }) }
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
