/**
 * The key manager: one device's account, its keys on the server, and its inbox.
 *
 * One-time keys:
 *
 *     (none) --prepareUpload: generate, sign, store, one durable step--> uploading
 *     uploading --handed out, the same text until it is answered--> uploading
 *               --200, by outcome--> available | issued (somebody was faster) | removed
 *               --refused--> unsent                      --another epoch--> issued (unknown: kept until the deadline)
 *     available --the pool moved past it--> issued       --reset said "withdrawn"--> withdrawn
 *     available, issued --a message with it was decrypted--> used
 *     issued --30 days, or 24 hours and no room for any other--> expired    (not one that a mere count shows as issued)
 *
 * The private half is in the account while a key is uploading, available or issued, and goes in the very step that moves
 * it on. So what the server may issue is a subset of what is held, whatever is lost on the way.
 *
 * Requests: at most one that changes keys is pending; it is a record of the store, and every process that shares the
 * store hands out the same text. Everything that is decided is decided inside one update of one state: who finds that
 * another process wrote decides again. Nothing here has a timer; `start` runs the loop for those who want one.
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

/** Plans that are thrown away because another process was faster, before giving up until the next call. */
const MAX_PLANS = 20

/**
 * Owns an Olm account: keeps its keys on the server and in the store in step, and decrypts what comes.
 *
 * @example
 * const manager = await KeyManager.open({ store, accounts: libolmAccounts(Olm, secret), userId, deviceId })
 * for (;;) {
 *   const ticket = await manager.syncStarted()
 *   const { messages } = await manager.receiveSync(await sync(manager.since), ticket)
 *   await handle(messages)
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
  #isTokenEnded = false
  #running: { readonly loop: Loop; readonly done: Promise<void> } | undefined
  /** Messages that the app has and that are not known to be handled. Another process's are its own matter. */
  readonly #handedOut = new Set<string>()
  /** Messages that were in the store when it was opened: an earlier process died over them. */
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
   * Opens the account in a store, or makes one where the store is empty.
   *
   * @throws {StoreError} when the store cannot be read, is damaged, or is another device's: never a fresh start instead
   */
  static async open(options: KeyManagerOptions): Promise<KeyManager> {
    const core = await openCore(options)
    return core.state.read((view) => {
      requireReadable(core.box, accountOf(view))
      return new KeyManager(core, view)
    })
  }

  /** The sync position to go on from; undefined for a first sync. */
  get since(): string | undefined {
    return this.#since
  }

  /** To be called before a sync is sent; what it returns goes to `receiveSync` with the answer. */
  async syncStarted(): Promise<SyncTicket> {
    return { generation: await this.#core.state.read((view) => view.generation) }
  }

  /**
   * Takes in an answer of `/sync`: decrypts, notes what the server says of the keys, and moves `since` on, all in one
   * durable step. Messages stay in the store until `messagesHandled`, or the next call of this after they were handed out:
   * an app that dies in between gets them again. Two processes each get what they decrypted themselves.
   *
   * @param answer the decoded answer, or its text
   * @param ticket from `syncStarted`; without it answers are taken to be begun after the last call of this ended
   */
  async receiveSync(answer: unknown, ticket?: SyncTicket): Promise<Received> {
    const sync = decodeAnswer(answer)
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

  /** All messages that were decrypted and not handled, by an earlier process or by another one that is still at work. */
  async unhandledMessages(): Promise<readonly DecryptedMessage[]> {
    this.#left = new Set()
    return this.#handOut(await this.#core.state.read((view) => inboxOf(view.all(INBOX))))
  }

  /** The messages that were handed out so far are dealt with, and go from the store. */
  async messagesHandled(): Promise<void> {
    const handled = [...this.#handedOut]
    if (handled.length === 0) return
    await this.#core.update(({ transaction }) => {
      for (const number of handled) if (transaction.get(INBOX, number)) transaction.delete(INBOX, number)
    })
    // What was handed out meanwhile is not dealt with.
    for (const number of handled) this.#handedOut.delete(number)
  }

  #handOut(messages: readonly [string, DecryptedMessage][]): DecryptedMessage[] {
    for (const [number] of messages) this.#handedOut.add(number)
    return messages.map(([, message]) => message)
  }

  /**
   * What is to be sent now: nothing, or one request. Asked again it says the same, until `markRequestAsSent`. After each
   * answer there may be another one: call it until it returns nothing, and after each sync.
   */
  async outgoingRequests(): Promise<OutgoingRequest[]> {
    if (this.#isTokenEnded) return []
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
   * Tells what came of a request. An answer that does not settle it (none, 429, 5xx) leaves it due, after a pause. Answers
   * to requests that were settled before, by another process or a duplicate, change nothing.
   */
  async markRequestAsSent(id: string, { status, body, retryAfterMs }: RequestAnswer): Promise<void> {
    const answer = { status, body: decodeAnswer(body) }
    if (status === 401) {
      this.#isTokenEnded = true
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
    // Handed out by another process: its start is unknown, so everything learned since counts as newer.
    const begunAt = handedOut?.id === id ? handedOut.begunAt : 0
    await this.#core.update((step) => {
      if (settlePending(step, id, { ...answer, begunAt }, retryAfterMs)) noteLimited(step)
    })
  }

  /** What this device knows of a key, by its public half, its ID or its whole name. */
  explain(publicKeyOrId: string): Promise<Explanation[]> {
    return explain((read) => this.#core.state.read(read), publicKeyOrId)
  }

  /** The heals of this device, the latest first. */
  history(): Promise<HealRecord[]> {
    return this.#core.state.read(healHistory)
  }

  /** Where things stand, for a page in the app's settings. */
  status(): Promise<KeyManagerStatus> {
    const { state, settings } = this.#core
    return state.read((view) => managerStatus(view, settings.now(), this.#isTokenEnded))
  }

  /**
   * Starts a session with another device, with a key of it that was claimed and whose signature was checked.
   *
   * @returns the session's ID
   */
  startSession(theirIdentityKey: string, theirOneTimeKey: string): Promise<string> {
    return this.#core.update((step) => startSession(step, theirIdentityKey, theirOneTimeKey))
  }

  /**
   * Encrypts for another device with the session that was used last. The session has moved on durably when this resolves.
   *
   * @returns undefined when there is no session: claim a key and call `startSession`
   */
  encrypt(theirIdentityKey: string, plaintext: string): Promise<OlmMessage | undefined> {
    return this.#core.update((step) => encrypt(step, theirIdentityKey, plaintext))
  }

  /** Signs canonical JSON text with the device's ed25519 key. @throws {OlmRefusal} when it is too long (libolm: 48 000 bytes) */
  sign(text: string): Promise<string> {
    return this.#core.update((step) => step.account().sign(text))
  }

  /**
   * Runs the loop: long-polls `/sync`, hands messages to `onMessages`, and sends what is due. What an earlier process left
   * unhandled comes first. Resolves after `stop`.
   *
   * @throws {StoreError} when the store fails; an Error when the token was refused, when the device is dead, and whatever
   * `onMessages` throws: the messages stay and come again
   */
  async start(options: LoopOptions): Promise<void> {
    if (this.#running !== undefined) throw new Error('the loop is running already')
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
   * Ends the loop, in the middle of a request if need be; resolves when nothing of it runs any more. Only a handler of the
   * app that runs at the time is not waited for, because it may be the one that calls this: the promise of `start` tells.
   */
  async stop(): Promise<void> {
    if (this.#running === undefined) return
    const { loop, done } = this.#running
    loop.stop()
    if (!loop.isHandling) await done
  }

  /** Gives back the memory of the account. The store stays open; it is the app's. */
  close(): void {
    this.#core.box.free()
  }

  async #query(type: QueryType, begunAt: number): Promise<OutgoingRequest> {
    for (const [id, query] of this.#queries) {
      // Asked again before it was answered: the same request, as with those that are stored.
      if (query.type === type) return this.#core.state.read((view) => queryRequest(view, id, type))
    }
    const id = newRequestId(this.#core.settings.random)
    this.#queries.clear()
    this.#queries.set(id, { type, begunAt })
    return this.#core.state.read((view) => queryRequest(view, id, type))
  }
}
