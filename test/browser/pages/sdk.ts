/**
 * A page with an app on an unmodified matrix-js-sdk: its crypto store is in IndexedDB, its fetch is guarded or, for
 * comparison, not. It records what happens; guard.test.ts waits for the records.
 */
import { type ClientEvent, type Guard, guardFetch, indexedDbStore } from '@latchkey/client'
import { ClientEvent as SdkEvent, createClient } from 'matrix-js-sdk'
import type { Logger } from 'matrix-js-sdk/lib/logger.js'

export type Account = {
  readonly baseUrl: string
  readonly userId: string
  readonly deviceId: string
  readonly token: string
}

type Notes = {
  /** Status of each answer to `/keys/upload`, as the SDK saw it. */
  readonly uploads: number[]
  /** Status of each answer as sent by the server; includes requests of the guard itself. */
  readonly uploadsOnWire: number[]
  /** Texts of messages that were decrypted. */
  readonly received: string[]
  /** Unencrypted messages that mark the end of everything sent before them. */
  readonly marks: string[]
  readonly events: ClientEvent[]
  /** Syncs whose answers are held back. */
  readonly held: unknown[]
  /** The SDK's state after each processed sync. */
  readonly syncs: string[]
}

/** Keys that the SDK keeps on the server. */
const FULL = 50
const MESSAGE = 'dev.latchkey.test.message'
const MARK = 'dev.latchkey.test.mark'

class SdkPage {
  readonly notes: Notes = {
    uploads: [],
    uploadsOnWire: [],
    received: [],
    marks: [],
    events: [],
    held: [],
    syncs: [],
  }
  #guard: Guard | undefined
  #holding: PromiseWithResolvers<void> | undefined
  #loseUploadAnswers = false
  readonly #watchers = new Set<() => void>()

  /** Starts the client; use `until` to wait for its progress. */
  async start(account: Account, { guarded }: { guarded: boolean }): Promise<void> {
    const { baseUrl, userId, deviceId, token } = account
    const wire: typeof fetch = (...args) => this.#onWire(...args)
    if (guarded) {
      this.#guard = guardFetch(wire, {
        store: indexedDbStore(`latchkey:${userId}:${deviceId}`),
        onEvent: (event) => this.#note(() => this.notes.events.push(event)),
      })
    }
    const fetchFn = this.#guard ?? wire
    const client = createClient({
      baseUrl,
      userId,
      deviceId,
      accessToken: token,
      logger: SILENT,
      fetchFn: async (...args) => {
        const response = await fetchFn(...args)
        if (isTo('/keys/upload', ...args)) this.#note(() => this.notes.uploads.push(response.status))
        return response
      },
    })
    client.on(SdkEvent.ReceivedToDeviceMessage, ({ message: { type, content } }) => {
      if (type === MESSAGE) this.#note(() => this.notes.received.push(String(content['text'])))
      if (type === MARK) this.#note(() => this.notes.marks.push(String(content['text'])))
    })
    client.on(SdkEvent.Sync, (state) => this.#note(() => this.notes.syncs.push(state)))
    // A store per account, because tests share an origin.
    await client.initRustCrypto({ cryptoDatabasePrefix: userId })
    await client.startClient({ initialSyncLimit: 0 })
  }

  /** Resolves when a list of the notes has `wanted` entries, or the entry `wanted`. */
  async until(list: keyof Notes, wanted: number | string): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const watcher = (): void => {
      const { length } = this.notes[list]
      const entries: readonly unknown[] = this.notes[list]
      if (typeof wanted === 'number' ? length >= wanted : entries.includes(wanted)) resolve()
    }
    this.#watchers.add(watcher)
    watcher()
    await promise
    this.#watchers.delete(watcher)
  }

  /** Holds back answers of syncs that report claimed keys until `release`. */
  holdSyncsWithClaims(): void {
    this.#holding = Promise.withResolvers<void>()
  }

  release(): void {
    this.#holding?.resolve()
    this.#holding = undefined
  }

  /** From now on uploads reach the server, but their answers are lost. */
  loseUploadAnswers(): void {
    this.#loseUploadAnswers = true
  }

  async #onWire(...args: Parameters<typeof fetch>): Promise<Response> {
    const response = await fetch(...args)
    if (isTo('/sync', ...args) && (await countOf(response)) < FULL && this.#holding !== undefined) {
      const { promise } = this.#holding
      this.#note(() => this.notes.held.push(args[0]))
      await promise
    }
    if (!isTo('/keys/upload', ...args)) return response
    this.#note(() => this.notes.uploadsOnWire.push(response.status))
    return this.#loseUploadAnswers ? new Promise<never>(() => undefined) : response
  }

  #note(change: () => unknown): void {
    change()
    for (const watcher of this.#watchers) watcher()
  }
}

function isTo(endpoint: string, ...[input]: Parameters<typeof fetch>): boolean {
  return new URL(input instanceof Request ? input.url : input).pathname.endsWith(endpoint)
}

/** One-time key count of a sync's answer. */
async function countOf(sync: Response): Promise<number> {
  const { device_one_time_keys_count: counts } = (await sync.clone().json()) as {
    device_one_time_keys_count?: { signed_curve25519?: number }
  }
  return counts?.signed_curve25519 ?? FULL
}

const SILENT: Logger = {
  trace() {},
  debug() {},
  info() {},
  warn() {},
  error() {},
  getChild: () => SILENT,
}

declare global {
  var sdkPage: SdkPage
}

globalThis.sdkPage = new SdkPage()
