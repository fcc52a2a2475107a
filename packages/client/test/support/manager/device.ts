/**
 * A device on a key manager over libolm, with real HTTP. Its answers can be lost, delayed or rewritten, it can crash,
 * and its account can be audited.
 */
import assert from 'node:assert/strict'
import { type AnyJson, MatrixSession } from '@latchkey/testing/matrix-session.ts'
import {
  type ClientEvent,
  type DecryptedMessage,
  KeyManager,
  type KeyManagerOptions,
  memoryStore,
  type OutgoingRequest,
  type ServerLevel,
  type Store,
  type SyncTicket,
} from '../../../src/index.ts'
import { libolmAccounts } from '../../../src/libolm.ts'
import { type Audit, auditPickle } from './audit.ts'
import { loadOlm } from './olm.ts'

export const PICKLE_KEY = 'the pickle key of the tests'

export type DeviceOptions = Partial<Omit<KeyManagerOptions, 'accounts' | 'userId' | 'deviceId'>> & {
  readonly user: string
  readonly deviceId: string
}

/** One request and its answer. */
export type Sent = { readonly request: OutgoingRequest; readonly status: number; readonly body: AnyJson }

/** Changes an answer before the manager sees it; undefined: it is lost. */
export type Rewrite = (
  request: OutgoingRequest,
  answer: { status: number; body: AnyJson },
) => { status: number; body: AnyJson } | undefined

export class ManagerDevice {
  readonly session: MatrixSession
  readonly store: Store
  readonly events: ClientEvent[] = []
  readonly received: DecryptedMessage[] = []
  readonly failures: { readonly sender: string; readonly verdict: string }[] = []
  readonly sent: Sent[] = []
  level: ServerLevel = 'latchkey'
  rewriteAnswer: Rewrite = (_request, answer) => answer
  rewriteSync: (answer: AnyJson) => AnyJson = (answer) => answer
  readonly #options: KeyManagerOptions
  #manager: KeyManager

  private constructor(
    session: MatrixSession,
    options: KeyManagerOptions,
    manager: KeyManager,
    events: ClientEvent[],
  ) {
    this.session = session
    this.store = options.store
    this.#options = options
    this.#manager = manager
    this.events = events
  }

  static async signIn(baseUrl: string, { user, deviceId, ...more }: DeviceOptions): Promise<ManagerDevice> {
    const session = await MatrixSession.signIn(baseUrl, user, deviceId)
    return ManagerDevice.on(session, more)
  }

  /** A device on an existing session: a second process, or a restart. */
  static async on(
    session: MatrixSession,
    more: Partial<Omit<KeyManagerOptions, 'accounts' | 'userId' | 'deviceId'>> = {},
  ): Promise<ManagerDevice> {
    const olm = await loadOlm()
    const events: ClientEvent[] = []
    const options: KeyManagerOptions = {
      store: memoryStore(),
      ...more,
      accounts: libolmAccounts(olm, PICKLE_KEY),
      userId: session.userId,
      deviceId: session.deviceId,
      onEvent: (event) => events.push(event),
    }
    return new ManagerDevice(session, options, await KeyManager.open(options), events)
  }

  /** Like `signIn`, then publishes the keys. */
  static async ready(baseUrl: string, options: DeviceOptions): Promise<ManagerDevice> {
    const device = await ManagerDevice.signIn(baseUrl, options)
    await device.catchUp()
    return device
  }

  get manager(): KeyManager {
    return this.#manager
  }

  get userId(): string {
    return this.session.userId
  }

  get deviceId(): string {
    return this.session.deviceId
  }

  get uploads(): Sent[] {
    return this.sent.filter(({ request }) => request.type === 'keys_upload')
  }

  /** One sync, and the requests that follow from it. */
  async catchUp(): Promise<void> {
    await this.sync()
    await this.sendRequests()
  }

  async sync(): Promise<AnyJson> {
    const ticket = await this.#manager.syncStarted()
    const answer = await this.askSync()
    await this.receive(answer, ticket)
    return answer
  }

  /** The answer of a sync, not yet given to the manager. */
  async askSync(): Promise<AnyJson> {
    const { since } = this.#manager
    const position = since === undefined ? '' : `&since=${encodeURIComponent(since)}`
    return this.#asOf(await this.session.ok('GET', `/v3/sync?timeout=0${position}`))
  }

  /** The answer of a server of the level: without our extensions, or also without `/keys/reset`. */
  #asOf(answer: AnyJson): AnyJson {
    if (this.level === 'latchkey') return answer
    const members = Object.entries<AnyJson>(answer).filter(([name]) => !name.startsWith('dev.latchkey.'))
    return Object.fromEntries(members)
  }

  async #call({ type, method, path, body }: OutgoingRequest): Promise<{ status: number; body: AnyJson }> {
    const isThere =
      this.level === 'latchkey' ||
      (type !== 'keys_pool' && (type !== 'keys_reset' || this.level === 'msc4162'))
    if (!isThere) return { status: 404, body: { errcode: 'M_UNRECOGNIZED' } }
    if (type === 'versions' && this.level !== 'latchkey') {
      return { status: 200, body: { unstable_features: { 'org.matrix.msc4162': this.level === 'msc4162' } } }
    }
    const answer = await this.session.call(method, path.replace(/^\/_matrix\/client/, ''), body)
    return { status: answer.status, body: this.#asOf(answer.body) }
  }

  async receive(answer: AnyJson, ticket?: SyncTicket): Promise<void> {
    const { messages, failures } = await this.#manager.receiveSync(this.rewriteSync(answer), ticket)
    this.received.push(...messages)
    this.failures.push(...failures)
  }

  /** Sends requests until none is due. */
  async sendRequests(): Promise<void> {
    for (let rounds = 0; rounds < 50; rounds++) {
      const [request] = await this.#manager.outgoingRequests()
      if (request === undefined) return
      if (!(await this.send(request))) return
    }
    assert.fail(
      `50 requests, and no end: ${this.sent.slice(-6).map(({ request, status }) => `${request.type} ${status}`)}`,
    )
  }

  /** Sends one request. Returns whether its answer came. */
  async send(request: OutgoingRequest): Promise<boolean> {
    const answer = await this.#call(request)
    this.sent.push({ request, ...answer })
    const seen = this.rewriteAnswer(request, answer)
    if (seen === undefined) return false
    await this.#manager.markRequestAsSent(request.id, seen)
    return true
  }

  /** Sends the due requests; the first answer of an upload or reset is lost. */
  async loseNextAnswer(): Promise<void> {
    let lost = false
    this.rewriteAnswer = ({ type }, answer) => {
      if (lost || (type !== 'keys_upload' && type !== 'keys_reset')) return answer
      lost = true
      return undefined
    }
    await this.sendRequests()
    this.rewriteAnswer = (_request, answer) => answer
    assert.ok(lost, 'no request was sent whose answer could be lost')
  }

  get target(): { readonly userId: string; readonly deviceId: string; readonly identityKey: string } {
    return {
      userId: this.userId,
      deviceId: this.deviceId,
      identityKey: this.#manager.identityKeys.curve25519,
    }
  }

  /** The process crashes, and restarts on the stored state. */
  async crash(): Promise<void> {
    this.#manager = await KeyManager.open(this.#options)
  }

  /** The received texts: of an SDK's events, or of a raw sender. */
  texts(): string[] {
    return this.received.map(({ plaintext }) =>
      plaintext.startsWith('{') ? JSON.parse(plaintext).content.text : plaintext,
    )
  }

  /** The private keys in the account, as stored. */
  async audit(): Promise<Audit> {
    const { records } = await this.store.read()
    return auditPickle(JSON.parse(records.get('account/only') ?? '{}').pickle, PICKLE_KEY)
  }

  pool(): Promise<AnyJson> {
    return this.session.ok('GET', '/unstable/dev.latchkey/keys/pool?limit=1000')
  }

  /**
   * The library's promise: this account can open every key that the server would issue. Returns the number available.
   */
  async assertSubset(): Promise<number> {
    const { oneTimeKeys, fallbackKeys } = await this.audit()
    const held = new Set(oneTimeKeys.map(({ hash }) => hash))
    const { signed_curve25519: pool = { available: [], count: 0 } } = (await this.pool()).algorithms
    const orphans = pool.available.filter((key: AnyJson) => !held.has(key.key_hash))
    assert.deepEqual(orphans, [], 'the server would issue keys whose private halves are not in the account')
    if (pool.fallback !== undefined) {
      const hashes = fallbackKeys.map(({ hash }) => hash)
      assert.ok(
        hashes.includes(pool.fallback.key_hash),
        'the fallback key of the server is not in the account',
      )
    }
    return pool.count
  }

  eventTypes(): string[] {
    return this.events.map(({ type }) => type)
  }
}
