/**
 * An unmodified matrix-js-sdk client: password login, `initRustCrypto`, `startClient`. Its requests are recorded.
 * Without a shared room the SDK does not track other users' devices, so `watch` tracks them explicitly.
 */
import { UserId } from '@matrix-org/matrix-sdk-crypto-wasm'
import { ClientEvent, createClient, type MatrixClient } from 'matrix-js-sdk'
import type { AuthDict } from 'matrix-js-sdk/lib/interactive-auth.js'
import { type Logger, logger as sdkLogger } from 'matrix-js-sdk/lib/logger.js'
import { type AnyJson, type Fetch, MatrixSession, PASSWORD } from './matrix-session.ts'
import { MESSAGE_TYPE, type Peer, type Received } from './olm-device.ts'
import { within } from './within.ts'

/** A request of the client and its answer. */
export type Exchange = {
  readonly method: string
  /** After `/_matrix/client`, without the query. */
  readonly path: string
  readonly sent: AnyJson
  readonly status: number
  readonly body: AnyJson
}

export type JsSdkOptions = {
  /** Carries the client's requests, once it is logged in. Default: the global one. */
  readonly fetch?: Fetch
  /** The `createClient` of another SDK version. Default: that of matrix-js-sdk. */
  readonly createClient?: typeof createClient
}

/** The members of the SDK's crypto backend that its types keep private. */
type CryptoBackend = {
  readonly olmMachine: { updateTrackedUsers(users: readonly UserId[]): Promise<void> }
  readonly outgoingRequestsManager: { doProcessOutgoingRequests(): Promise<void> }
}

export class JsSdkClient {
  readonly session: MatrixSession
  readonly received: Received[] = []
  readonly exchanges: Exchange[] = []
  readonly #client: MatrixClient
  readonly #send: Fetch
  #away: PromiseWithResolvers<void> | undefined
  readonly #watchers = new Set<() => void>()

  private constructor(session: MatrixSession, options: JsSdkOptions) {
    this.session = session
    this.#send = options.fetch ?? fetch
    this.#client = (options.createClient ?? createClient)({
      baseUrl: session.baseUrl,
      userId: session.userId,
      deviceId: session.deviceId,
      accessToken: session.token,
      logger: SILENT,
      fetchFn: (input, init) => this.#fetch(input, init),
    })
    this.#client.on(ClientEvent.ReceivedToDeviceMessage, ({ message, encryptionInfo }) => {
      if (message.type !== MESSAGE_TYPE || encryptionInfo === null) return
      this.received.push({ sender: message.sender, text: message.content['text'] })
      this.#notifyWatchers()
    })
    this.#client.on(ClientEvent.AccountData, () => this.#notifyWatchers())
  }

  /** Creates the account if needed, logs in, and syncs until the device's keys are published. */
  static async start(
    baseUrl: string,
    user: string,
    deviceId: string,
    options: JsSdkOptions = {},
  ): Promise<JsSdkClient> {
    silence(sdkLogger)
    const started = new JsSdkClient(await MatrixSession.signIn(baseUrl, user, deviceId), options)
    await started.#client.initRustCrypto({ useIndexedDB: false })
    await started.#client.startClient({ initialSyncLimit: 0 })
    await started.until('the upload of device keys', () =>
      started.uploads.some(({ status }) => status === 200),
    )
    return started
  }

  get userId(): string {
    return this.session.userId
  }

  get deviceId(): string {
    return this.session.deviceId
  }

  get uploads(): readonly Exchange[] {
    return this.exchanges.filter(({ path }) => path === '/v3/keys/upload')
  }

  /** The content of the client's account data of this type; undefined if it has none. */
  accountData(type: string): AnyJson {
    return this.#client.getAccountData(type as never)?.getContent()
  }

  /** Resolves when `holds` is true after a request, an answer or an event of the client. */
  async until(what: string, holds: () => boolean): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const watcher = (): void => {
      if (holds()) resolve()
    }
    this.#watchers.add(watcher)
    watcher()
    try {
      await within(`${this.userId}: ${what}`, promise)
    } finally {
      this.#watchers.delete(watcher)
    }
  }

  async watch(peer: Peer): Promise<void> {
    const backend = this.#client.getCrypto() as unknown as CryptoBackend
    await backend.olmMachine.updateTrackedUsers([new UserId(peer.userId)])
    await backend.outgoingRequestsManager.doProcessOutgoingRequests()
  }

  /** Encrypts for a watched device and sends; resolves when the server has accepted the message. */
  async write(to: Peer, text: string): Promise<void> {
    const sent = (): number =>
      this.exchanges.filter(({ path }) => path.startsWith('/v3/sendToDevice/')).length
    const before = sent()
    const { userId, deviceId } = to
    await this.#client.encryptAndSendToDevice(MESSAGE_TYPE, [{ userId, deviceId }], { text })
    await this.until(`the message "${text}" to be sent`, () => sent() > before)
  }

  /** Creates and publishes cross-signing keys; the server requires the password. */
  async bootstrapCrossSigning(): Promise<void> {
    const crypto = this.#client.getCrypto()
    if (crypto === undefined) throw new Error('the client has no crypto')
    await crypto.bootstrapCrossSigning({
      setupNewCrossSigning: true,
      authUploadDeviceSigningKeys: async (makeRequest) => {
        try {
          await makeRequest(null)
        } catch (error) {
          await makeRequest(this.#passwordFor(error))
        }
      },
    })
  }

  /** Goes offline: later requests and answers wait for `resume`. */
  pause(): void {
    this.#away = Promise.withResolvers<void>()
  }

  resume(): void {
    this.#away?.resolve()
    this.#away = undefined
  }

  stop(): void {
    this.resume()
    this.#client.stopClient()
  }

  [Symbol.dispose](): void {
    this.stop()
  }

  #passwordFor(error: unknown): AuthDict {
    const challenge = (error as { data?: { session?: string } }).data
    if (challenge?.session === undefined) throw error
    return {
      type: 'm.login.password',
      identifier: { type: 'm.id.user', user: this.userId },
      password: PASSWORD,
      session: challenge.session,
    }
  }

  async #fetch(input: string | URL | Request, init?: RequestInit): Promise<Response> {
    await this.#away?.promise
    const response = await this.#send(input, init)
    await this.#away?.promise
    const url = new URL(input instanceof Request ? input.url : input)
    const answer = response.clone()
    const body: AnyJson = await answer.json()
    this.exchanges.push({
      method: init?.method ?? 'GET',
      path: url.pathname.replace('/_matrix/client', ''),
      sent: typeof init?.body === 'string' ? JSON.parse(init.body) : undefined,
      status: response.status,
      body,
    })
    this.#notifyWatchers()
    return response
  }

  #notifyWatchers(): void {
    for (const watcher of this.#watchers) watcher()
  }
}

const SILENT: Logger = {
  trace() {},
  debug() {},
  info() {},
  warn() {},
  error() {},
  getChild: () => SILENT,
}

const SDK_REQUEST_TIMEOUT_MS = 30_000

/** Unrefs the SDK's request timeouts, because it never clears them and they would keep a finished process alive. */
function unrefSdkTimeouts(): void {
  const { setTimeout } = globalThis
  const unheld = (...args: Parameters<typeof setTimeout>): NodeJS.Timeout => {
    const timer = setTimeout(...args)
    return (args[1] ?? 0) >= SDK_REQUEST_TIMEOUT_MS ? timer.unref() : timer
  }
  Object.defineProperties(unheld, Object.getOwnPropertyDescriptors(setTimeout))
  globalThis.setTimeout = unheld as typeof setTimeout
}

unrefSdkTimeouts()

/** Silences the SDK's module-level logger (loglevel). */
export function silence(logger: object): void {
  if ('setLevel' in logger && typeof logger.setLevel === 'function') logger.setLevel('silent', false)
}
