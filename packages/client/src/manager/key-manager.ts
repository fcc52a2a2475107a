/**
 * The key manager: one device's account, its keys on the server, and its inbox.
 *
 * One-time keys:
 *
 *     (none) --prepareUpload: generate, sign, store, in one durable step--> uploading
 *     uploading --sent, the same text until it is answered--> uploading
 *               --200, by outcome--> available | issued (claimed already) | removed
 *               --refused--> unsent                 --another epoch--> issued (unknown: kept until the deadline)
 *     available --the pool moved past it--> issued  --reset answered "withdrawn"--> withdrawn
 *     available, issued --a message with it was decrypted--> used
 *     issued --30 days, or 24 hours when no other room is left--> expired   (not if only a count shows it as issued)
 *
 * The private half is in the account while a key is uploading, available or issued, and is dropped in the same step
 * that changes this state. So the keys that the server may issue are always a subset of the keys held.
 *
 * Requests: at most one request that changes keys is pending. It is a stored record, so every process that shares the
 * store sends the same text. Each decision is made inside one update of one state; a process that finds a newer state
 * decides again. Nothing here uses timers; `start` runs a ready-made loop.
 */
import { healHistory, type HealRecord } from '../heal/heals.ts'
import { explain, type Explanation } from '../ledger/explain.ts'
import type { IdentityKeys, OlmMessage } from '../olm/olm-account.ts'
import { isFinal } from '../server/answers.ts'
import type { View } from '../store/stored-state.ts'
import { ciphertextsFor, inboxOf, type Received } from './inbox.ts'
import { Loop, type LoopOptions } from './loop.ts'
import { openCore } from './open.ts'
import { type KeyManagerOptions, requireReadable } from './options.ts'
import { settleQuery } from './settle-query.ts'
import { type DecryptedMessage, INBOX } from './records.ts'
import {
  changeRequest,
  nextRequest,
  type OutgoingRequest,
  queryRequest,
  type QueryType,
  type RequestAnswer,
} from './requests.ts'
import { noteFailure } from './retry.ts'
import { encrypt, startSession } from './sessions.ts'
import { settlePending } from './settle.ts'
import { type KeyManagerStatus, managerStatus } from './status.ts'
import { accountOf, type Core, statusOf } from './step.ts'
import { applySync, decodeAnswer, noteLimited, type SyncTicket, toDeviceEvents } from './sync-answer.ts'
import { prepareReset, prepareUpload } from './upload.ts'
import { newRequestId } from './wire-ids.ts'

/** Discarded plans per call: each one means that another process was faster. */
const MAX_PLANS = 20

/**
 * Owns an Olm account: keeps its keys on the server and in the store consistent, and decrypts messages.
 *
 * All state is in the store. Methods reject with `StoreError` when the store fails; the state is then unchanged.
 *
 * @example
 * // Ready-made loop:
 * const manager = await KeyManager.open({ store, accounts: libolmAccounts(Olm, secret), userId, deviceId })
 * await manager.start({ baseUrl, accessToken, onMessages: (messages) => handle(messages) })
 * @example
 * // Driven by an SDK:
 * for (;;) {
 *   const ticket = await manager.syncStarted()
 *   const { messages } = await manager.receiveSync(await sync(manager.since), ticket)
 *   await handle(messages)
 *   await manager.messagesHandled()
 *   for (let requests; (requests = await manager.outgoingRequests()).length > 0; ) {
 *     for (const request of requests) await manager.markRequestAsSent(request.id, await send(request))
 *   }
 * }
 */
export class KeyManager {
  /** The device's public identity keys. */
  readonly identityKeys: IdentityKeys
  readonly #core: Core
  readonly #queries = new Map<string, { readonly type: QueryType; readonly begunAt: number }>()
  #since: string | undefined
  #begunAt: number
  #knowsVersions = false
  #isTokenRefused = false
  #running: { readonly loop: Loop; readonly done: Promise<void> } | undefined
  /** Inbox numbers of messages handed out by this process and not yet handled. */
  readonly #handedOut = new Set<string>()
  /** Inbox numbers found when the store was opened: an earlier process did not handle them. */
  #left: ReadonlySet<string>
  #handedOutRequest: { readonly id: string; readonly begunAt: number } | undefined

  private constructor(core: Core, view: View) {
    const { curve25519, ed25519 } = accountOf(view)
    this.#core = core
    this.identityKeys = { curve25519, ed25519 }
    this.#since = statusOf(view).since
    this.#begunAt = view.generation
    this.#left = new Set(view.all(INBOX).keys())
  }

  /**
   * Opens the account in a store, or creates one in an empty store.
   *
   * @throws {StoreError} when the store cannot be read, is damaged, or belongs to another device; it never starts
   * afresh
   */
  static async open(options: KeyManagerOptions): Promise<KeyManager> {
    const core = await openCore(options)
    return core.state.read((view) => {
      requireReadable(core.box, accountOf(view))
      return new KeyManager(core, view)
    })
  }

  /** The sync position to continue from; undefined for a first sync. */
  get since(): string | undefined {
    return this.#since
  }

  /** Call this before sending a sync, and pass the result to `receiveSync` with the answer. */
  async syncStarted(): Promise<SyncTicket> {
    return { generation: await this.#core.state.read((view) => view.generation) }
  }

  /**
   * Applies an answer of `/sync` in one durable step: decrypts messages, takes in the server's key counts and pool
   * state, and advances `since`. Messages stay in the store until `messagesHandled`, or until the next call after they
   * were handed out, so an app that crashes in between receives them again. Each of several processes receives what it
   * decrypted itself.
   *
   * @param answer the decoded answer, or its text
   * @param ticket from `syncStarted`; without it the sync is assumed to have begun after the previous call
   * @throws {StoreError} when the store fails; an Error when 10 000 messages are unhandled
   */
  async receiveSync(answer: unknown, ticket?: SyncTicket): Promise<Received> {
    const sync = decodeAnswer(answer)
    // The app has refreshed its token after a 401 with soft_logout: the device and its keys go on.
    this.#isTokenRefused = false
    const handled = [...this.#handedOut]
    const left = this.#left
    const begunAt = ticket?.generation ?? this.#begunAt
    const ciphertexts = await ciphertextsFor(toDeviceEvents(sync), this.identityKeys.curve25519)
    const { failures, messages, since, generation } = await this.#core.update((step) =>
      applySync(step, { sync, ciphertexts, begunAt, handled, left }),
    )
    for (const number of handled) this.#handedOut.delete(number)
    this.#left = new Set()
    this.#since = since
    this.#begunAt = generation
    return { messages: this.#handOut(messages), failures }
  }

  /** All decrypted, unhandled messages, including those of earlier and concurrent processes. */
  async unhandledMessages(): Promise<readonly DecryptedMessage[]> {
    this.#left = new Set()
    return this.#handOut(await this.#core.state.read((view) => inboxOf(view.all(INBOX))))
  }

  /** Acknowledges all messages handed out so far; they are deleted from the store. */
  async messagesHandled(): Promise<void> {
    const handled = [...this.#handedOut]
    if (handled.length === 0) return
    await this.#core.update(({ transaction }) => {
      for (const number of handled) if (transaction.get(INBOX, number)) transaction.delete(INBOX, number)
    })
    // Messages handed out in the meantime are not acknowledged.
    for (const number of handled) this.#handedOut.delete(number)
  }

  #handOut(messages: readonly [string, DecryptedMessage][]): DecryptedMessage[] {
    for (const [number] of messages) this.#handedOut.add(number)
    return messages.map(([, message]) => message)
  }

  /**
   * The request to send now: none, or one. Repeated calls return the same request until `markRequestAsSent`. Call it
   * after each sync and after each answer, until it returns an empty list.
   */
  async outgoingRequests(): Promise<OutgoingRequest[]> {
    if (this.#isTokenRefused) return []
    const { state, settings } = this.#core
    for (let plans = 0; plans < MAX_PLANS; plans++) {
      const next = await state.read((view) =>
        nextRequest(view, settings, settings.now(), this.#knowsVersions),
      )
      switch (next.kind) {
        case 'nothing':
          return []
        case 'pending':
          if (this.#handedOutRequest?.id !== next.request.id) {
            this.#handedOutRequest = { id: next.request.id, begunAt: next.generation }
          }
          return [changeRequest(next.request)]
        case 'read':
          return [await this.#query(next.type, next.generation)]
        case 'prepare':
          await prepareUpload(this.#core, next.plan)
          break
        case 'reset':
          await prepareReset(this.#core, next.generation)
          break
      }
    }
    return []
  }

  /**
   * Applies the answer to a request. An answer that does not settle it (none, 429, 5xx) leaves it due, after a pause.
   * Answers to requests that are already settled, by another process or a duplicate, change nothing.
   */
  async markRequestAsSent(id: string, { status, body, retryAfterMs }: RequestAnswer): Promise<void> {
    const answer = { status, body: decodeAnswer(body) }
    if (status === 401) {
      this.#isTokenRefused = true
      return
    }
    const query = this.#queries.get(id)
    if (query !== undefined) {
      this.#queries.delete(id)
      await this.#core.update((step) => {
        const isSettled = settleQuery(step, query, answer)
        noteFailure(step, isSettled ? undefined : { answer: answer.body, retryAfterMs })
      })
      if (query.type === 'versions' && isFinal(status)) this.#knowsVersions = true
      return
    }
    const handedOut = this.#handedOutRequest
    // Sent by another process: its start is unknown, so everything learned since counts as newer.
    const begunAt = handedOut?.id === id ? handedOut.begunAt : 0
    await this.#core.update((step) => {
      if (settlePending(step, id, { ...answer, begunAt }, retryAfterMs)) noteLimited(step)
    })
  }

  /** Explains the ledger's records of a key, by its public half, key ID or full name. */
  explain(publicKeyOrId: string): Promise<Explanation[]> {
    return explain((read) => this.#core.state.read(read), publicKeyOrId)
  }

  /** The heals of this device, latest first. */
  history(): Promise<HealRecord[]> {
    return this.#core.state.read(healHistory)
  }

  /** Current state, for a settings page. */
  status(): Promise<KeyManagerStatus> {
    const { state, settings } = this.#core
    return state.read((view) => managerStatus(view, settings.now(), this.#isTokenRefused))
  }

  /**
   * Starts a session with another device.
   *
   * @param theirIdentityKey the device's curve25519 identity key
   * @param theirOneTimeKey a claimed key of that device; its signature must have been verified
   * @returns the session's ID
   * @throws {OlmRefusal} when a key is malformed
   */
  startSession(theirIdentityKey: string, theirOneTimeKey: string): Promise<string> {
    return this.#core.update((step) => startSession(step, theirIdentityKey, theirOneTimeKey))
  }

  /**
   * Encrypts for another device with the most recently used session. The session's new state is durable when this
   * resolves.
   *
   * @returns undefined when there is no session: claim a key and call `startSession`
   */
  encrypt(theirIdentityKey: string, plaintext: string): Promise<OlmMessage | undefined> {
    return this.#core.update((step) => encrypt(step, theirIdentityKey, plaintext))
  }

  /**
   * Signs canonical JSON text with the device's ed25519 key.
   *
   * @returns the signature, unpadded base64
   * @throws {OlmRefusal} when the text is too long (libolm: 48 000 bytes)
   */
  sign(text: string): Promise<string> {
    return this.#core.update((step) => step.account().sign(text))
  }

  /**
   * Runs the loop: long-polls `/sync`, passes messages to `onMessages`, and sends due requests. Unhandled messages of
   * an earlier process come first. Resolves after `stop`.
   *
   * @throws {StoreError} when the store fails; an Error when the token was refused or the account is unusable; any
   * error of `onMessages`: its messages stay in the store and are delivered again
   */
  async start(options: LoopOptions): Promise<void> {
    if (this.#running !== undefined) throw new Error('the loop is already running')
    const loop = new Loop(this, options)
    const done = loop.run()
    this.#running = { loop, done: done.catch(() => undefined) }
    try {
      await done
    } finally {
      this.#running = undefined
    }
  }

  /**
   * Ends the loop, aborting a request in progress; resolves when the loop has ended. It does not wait for a running
   * handler of the app, which may itself call `stop`: await the promise of `start` for that.
   */
  async stop(): Promise<void> {
    if (this.#running === undefined) return
    const { loop, done } = this.#running
    loop.stop()
    if (!loop.isHandling) await done
  }

  /** Frees the account's memory. The store stays open; it belongs to the app. */
  close(): void {
    this.#core.box.free()
  }

  async #query(type: QueryType, begunAt: number): Promise<OutgoingRequest> {
    for (const [id, query] of this.#queries) {
      // Asked again before the answer: the same request, like the stored ones.
      if (query.type === type) return this.#core.state.read((view) => queryRequest(view, id, type))
    }
    const id = newRequestId(this.#core.settings.random)
    this.#queries.clear()
    this.#queries.set(id, { type, begunAt })
    return this.#core.state.read((view) => queryRequest(view, id, type))
  }
}
