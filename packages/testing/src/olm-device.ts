/**
 * A Matrix device with an unmodified OlmMachine (matrix-sdk-crypto-wasm) over real HTTP. It can lose answers, keep its
 * state in IndexedDB, restart, and be restored from a backup.
 */
import {
  type Device,
  DeviceId,
  DeviceLists,
  initAsync,
  LoggerLevel,
  OlmMachine,
  ProcessedToDeviceEventType,
  RequestType,
  StoreHandle,
  type ToDeviceRequest,
  ToDeviceUnableToDecryptReason,
  Tracing,
  UserId,
} from '@matrix-org/matrix-sdk-crypto-wasm'
import { copyStore, emptyStore, restoreStore, type StoreCopy } from './crypto-store.ts'
import {
  type Answer,
  type AnyJson,
  type ClaimedKey,
  claimedKey,
  type Fetch,
  MatrixSession,
} from './matrix-session.ts'

export const MESSAGE_TYPE = 'dev.latchkey.test.message'

export type Received = { readonly sender: string; readonly text: string }

export type Undecryptable = { readonly sender: string; readonly reason: string }

/** One `/keys/upload`: the body as sent, and the server's answer, even if the machine did not receive it. */
export type Upload = Answer & { readonly sent: string }

/** A device's backup: its crypto store and its sync token. */
export type Backup = { readonly store: StoreCopy; readonly since: string | undefined }

export type SignIn = {
  readonly user: string
  readonly deviceId: string
  /** Keeps the state in IndexedDB under this name. Default: in memory, lost with the machine. */
  readonly storeName?: string
  /** Sends the device's requests after login. Default: the global `fetch`. */
  readonly fetch?: Fetch
  /** An existing session to share, as browser tabs do, instead of a new login. */
  readonly session?: MatrixSession
}

export type Peer = { readonly userId: string; readonly deviceId: string }

type Outgoing = Awaited<ReturnType<OlmMachine['outgoingRequests']>>[number]

/** Warning that the machine logs for every encrypted to-device message; ignored. */
const IGNORED_WARNING = 'Received an unexpected encrypted to-device event'

/** Encryption key of the databases; any value serves, because they end with the process. */
const STORE_KEY = new Uint8Array(32)

export class OlmDevice {
  readonly session: MatrixSession
  readonly received: Received[] = []
  readonly undecryptable: Undecryptable[] = []
  /** The undecryptable events as received. */
  readonly undecryptableEvents: AnyJson[] = []
  readonly uploads: Upload[] = []
  /** Warnings and errors that the machine logged. */
  readonly warnings: string[] = []
  readonly #storeName: string | undefined
  #machine: OlmMachine | undefined
  #since: string | undefined
  #transactions = 0

  private constructor(session: MatrixSession, storeName: string | undefined) {
    this.session = session
    this.#storeName = storeName
  }

  /** Creates the account if needed, logs in, and opens the machine. Publishes nothing yet. */
  static async signIn(
    baseUrl: string,
    { user, deviceId, storeName, fetch, session }: SignIn,
  ): Promise<OlmDevice> {
    await initAsync()
    new Tracing(LoggerLevel.Warn).turnOn()
    const own = session ?? (await MatrixSession.signIn(baseUrl, user, deviceId))
    const device = new OlmDevice(fetch === undefined ? own : own.through(fetch), storeName)
    await device.#open()
    return device
  }

  /** As `signIn`, then publishes device keys, one-time keys and a fallback key. */
  static async ready(baseUrl: string, options: SignIn): Promise<OlmDevice> {
    const device = await OlmDevice.signIn(baseUrl, options)
    await device.catchUp()
    return device
  }

  get userId(): string {
    return this.session.userId
  }

  get deviceId(): string {
    return this.session.deviceId
  }

  /** The latest `/keys/upload`. */
  get lastUpload(): Upload {
    const upload = this.uploads.at(-1)
    if (upload === undefined) throw new Error(`${this.userId} has not uploaded any keys`)
    return upload
  }

  /** One sync, then the requests that result from it. */
  async catchUp(): Promise<AnyJson> {
    const answer = await this.sync()
    await this.sendRequests()
    return answer
  }

  /** One sync, passed to the machine; the server may hold it for `timeoutMs`. */
  async sync({ timeoutMs = 0 }: { timeoutMs?: number } = {}): Promise<AnyJson> {
    const since = this.#since === undefined ? '' : `&since=${encodeURIComponent(this.#since)}`
    const answer = await this.session.ok('GET', `/v3/sync?timeout=${timeoutMs}${since}`)
    const changed: string[] = answer.device_lists?.changed ?? []
    const events = await this.#openMachine().receiveSyncChanges(
      JSON.stringify(answer.to_device.events),
      new DeviceLists(
        changed.map((user) => new UserId(user)),
        [],
      ),
      new Map(Object.entries<number>(answer.device_one_time_keys_count)),
      new Set<string>(answer.device_unused_fallback_key_types),
    )
    this.#since = answer.next_batch
    for (const event of events) {
      const { sender, content } = JSON.parse(event.rawEvent)
      if (event.type === ProcessedToDeviceEventType.Decrypted) {
        this.received.push({ sender, text: content.text })
      } else if ('utdInfo' in event) {
        this.undecryptable.push({ sender, reason: ToDeviceUnableToDecryptReason[event.utdInfo.reason] })
        this.undecryptableEvents.push(JSON.parse(event.rawEvent))
      }
    }
    return answer
  }

  /**
   * Sends the machine's outgoing requests until there are none left or one was refused. With `loseUploadAnswer` the
   * next upload reaches the server and its answer is lost.
   */
  async sendRequests({ loseUploadAnswer = false }: { loseUploadAnswer?: boolean } = {}): Promise<void> {
    const machine = this.#openMachine()
    for (;;) {
      const requests = await machine.outgoingRequests()
      for (const request of requests) {
        const { status, body } = await this.#send(request)
        if (request.type === RequestType.KeysUpload && loseUploadAnswer) return
        if (status !== 200) return
        await machine.markRequestAsSent(request.id ?? '', request.type, JSON.stringify(body))
      }
      if (requests.length === 0) return
    }
  }

  /** Encrypts for a device and sends. Queries its keys and claims one first if there is no session yet. */
  async write(to: Peer, text: string): Promise<ClaimedKey | undefined> {
    const claimed = await this.startSession(to)
    await this.send(to, text)
    return claimed
  }

  /** Queries the keys of a device's user and tracks the user's device list from now on. */
  async watch(peer: Peer): Promise<void> {
    await this.#openMachine().updateTrackedUsers([new UserId(peer.userId)])
    await this.sendRequests()
  }

  /** Whether a watched device has a valid signature by its owner's self-signing key. */
  async isSignedByOwner(peer: Peer): Promise<boolean> {
    return (await this.#deviceOf(peer)).isCrossSignedByOwner()
  }

  /** Starts a session with the device if there is none. Returns the claimed key, if any. */
  async startSession(to: Peer): Promise<ClaimedKey | undefined> {
    await this.watch(to)
    const machine = this.#openMachine()
    const request = await machine.getMissingSessions([new UserId(to.userId)])
    if (request === null) return undefined
    const answer = await this.session.ok('POST', '/v3/keys/claim', request.body)
    await machine.markRequestAsSent(request.id, request.type, JSON.stringify(answer))
    return claimedKey(answer, to.userId, to.deviceId)
  }

  /** Encrypts with the existing session and sends. */
  async send(to: Peer, text: string): Promise<void> {
    const device = await this.#deviceOf(to)
    const content = JSON.parse(await device.encryptToDeviceEvent(MESSAGE_TYPE, { text }))
    const path = `/v3/sendToDevice/m.room.encrypted/${this.deviceId}-${this.#transactions++}`
    await this.session.ok('PUT', path, { messages: { [to.userId]: { [to.deviceId]: content } } })
  }

  /** Resets all keys (MSC4162, unstable path). */
  resetKeys(): Promise<AnyJson> {
    return this.session.ok('POST', '/unstable/org.matrix.msc4162/keys/reset', { all: true })
  }

  /** The server's view of this device's pools (`/keys/pool`). */
  pool(): Promise<AnyJson> {
    return this.session.ok('GET', '/unstable/dev.latchkey/keys/pool')
  }

  /** Closes the machine and reopens it from its stored state. */
  async restart(): Promise<void> {
    this.#requireStore()
    this.close()
    await this.#open()
  }

  async backUp(): Promise<Backup> {
    const storeName = this.#requireStore()
    this.close()
    const store = await copyStore(storeName)
    await this.#open()
    return { store, since: this.#since }
  }

  /** Restores the device's state from a backup; the server keeps its newer state. */
  async restoreFrom(backup: Backup): Promise<void> {
    this.#requireStore()
    this.close()
    await restoreStore(backup.store)
    this.#since = backup.since
    await this.#open()
  }

  /** Erases the state but keeps the session: the device gets a new identity under the same device ID. */
  async wipe(): Promise<void> {
    const storeName = this.#requireStore()
    this.close()
    await emptyStore(storeName)
    this.#since = undefined
    await this.#open()
  }

  close(): void {
    this.#machine?.close()
    this.#machine = undefined
  }

  [Symbol.dispose](): void {
    this.close()
  }

  async #open(): Promise<void> {
    const note = (line: unknown): void => {
      const [first = ''] = String(line).split('\n')
      if (!first.includes(IGNORED_WARNING)) this.warnings.push(first)
    }
    const logger = { debug() {}, info() {}, trace() {}, warn: note, error: note }
    const ids = [new UserId(this.userId), new DeviceId(this.deviceId)] as const
    const store =
      this.#storeName === undefined
        ? await StoreHandle.open(undefined, undefined, logger)
        : await StoreHandle.openWithKey(this.#storeName, STORE_KEY, logger)
    this.#machine = await OlmMachine.initFromStore(...ids, store, logger)
  }

  #openMachine(): OlmMachine {
    if (this.#machine === undefined) throw new Error(`the machine of ${this.userId} is closed`)
    return this.#machine
  }

  async #deviceOf(peer: Peer): Promise<Device> {
    const ids = [new UserId(peer.userId), new DeviceId(peer.deviceId)] as const
    const device = await this.#openMachine().getDevice(...ids)
    if (device === undefined) throw new Error(`${this.userId} does not know ${peer.userId} ${peer.deviceId}`)
    return device
  }

  #requireStore(): string {
    if (this.#storeName === undefined) throw new Error(`${this.userId} was signed in without a storeName`)
    return this.#storeName
  }

  async #send(request: Outgoing): Promise<Answer> {
    const sent = request.body
    switch (request.type) {
      case RequestType.KeysUpload: {
        const answer = await this.session.call('POST', '/v3/keys/upload', sent)
        this.uploads.push({ ...answer, sent })
        return answer
      }
      case RequestType.KeysQuery:
        return this.session.call('POST', '/v3/keys/query', sent)
      case RequestType.KeysClaim:
        return this.session.call('POST', '/v3/keys/claim', sent)
      case RequestType.SignatureUpload:
        return this.session.call('POST', '/v3/keys/signatures/upload', sent)
      case RequestType.ToDevice: {
        const { event_type: type, txn_id: transaction } = request as ToDeviceRequest
        return this.session.call('PUT', `/v3/sendToDevice/${type}/${transaction}`, sent)
      }
      case RequestType.RoomMessage:
      case RequestType.KeysBackup:
        throw new Error(
          `unsupported request of the machine: ${RequestType[request.type]}; it needs rooms or backups`,
        )
    }
  }
}
