/**
 * The bot of naive-libolm.ts with the library: it syncs, passes the answer on, and sends the requests that it gets. It
 * handles only the event of an unusable account, by logging in as a new device. Its store is a file.
 */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import {
  type ClientEvent,
  KeyManager,
  type RequestAnswer,
  type Store,
  type SyncTicket,
} from '@latchkey/client'
import { libolmAccounts } from '@latchkey/client/libolm'
import { fileStore } from '@latchkey/client/node'
import { BETWEEN_ROUNDS_MS, type Clock } from './clock.ts'
import { MatrixSession } from '@latchkey/testing/matrix-session.ts'
import {
  type Backup,
  type Heals,
  type LibolmDevice,
  type PendingSync,
  POOL,
  type PoolContents,
  poolContents,
  type Start,
  type Unreadable,
} from './device.ts'
import type { Olm } from './load-olm.ts'
import { type FaultyNetwork, isLost } from './network.ts'
import { auditPickle, heldPublicKeys } from './pickle-audit.ts'

export type ManagedOptions = {
  readonly olm: Olm
  readonly session: MatrixSession
  readonly network: FaultyNetwork
  /** Path of the store. */
  readonly path: string
  readonly clock: Clock
  /** Observes or changes writes to the store. */
  readonly wrapStore?: (store: Store) => Store
  /** Called with each message and its ID before the message is marked as handled. */
  readonly onRead?: (id: string, text: string) => void
}

const PICKLE_KEY = 'lab'
/** The files of one store. */
const FILES = ['', '-wal', '-shm'] as const

export class ManagedBot implements LibolmDevice {
  readonly network: FaultyNetwork
  readonly read: string[] = []
  readonly unreadable: Unreadable[] = []
  readonly events: ClientEvent[] = []
  readonly #options: ManagedOptions
  /** IDs of messages that the app has handled. */
  readonly #handled = new Set<string>()
  #direct: MatrixSession
  #session: MatrixSession
  #path: string
  #store: Store | undefined
  #manager: KeyManager | undefined
  #unusableBecause: string | undefined

  private constructor(options: ManagedOptions) {
    this.#options = options
    this.network = options.network
    this.#direct = options.session
    this.#session = options.session.through(options.network.fetch)
    this.#path = options.path
  }

  static async open(options: ManagedOptions): Promise<ManagedBot> {
    const bot = new ManagedBot(options)
    const { error } = await bot.restart()
    if (error !== undefined) throw new Error(error)
    return bot
  }

  get userId(): string {
    return this.#session.userId
  }

  get deviceId(): string {
    return this.#session.deviceId
  }

  /** Why an earlier device of this bot was abandoned. */
  get unusableBecause(): string | undefined {
    return this.#unusableBecause
  }

  async restart(): Promise<Start> {
    await this.#closeStore()
    const { olm, clock, wrapStore = (store) => store } = this.#options
    const store = wrapStore(fileStore(this.#path))
    this.#store = store
    try {
      this.#manager = await KeyManager.open({
        store,
        accounts: libolmAccounts(olm, PICKLE_KEY),
        userId: this.userId,
        deviceId: this.deviceId,
        onEvent: (event) => this.events.push(event),
        now: clock.now,
      })
      return {}
    } catch (error) {
      return { error: String(error) }
    }
  }

  async backUp(): Promise<Backup> {
    await this.#closeStore()
    const content = FILES.filter((suffix) => existsSync(this.#path + suffix)).map(
      (suffix) => [suffix, readFileSync(this.#path + suffix)] as const,
    )
    await this.restart()
    return { content }
  }

  async restore({ content }: Backup): Promise<Start> {
    await this.#closeStore()
    for (const suffix of FILES) rmSync(this.#path + suffix, { force: true })
    for (const [suffix, bytes] of content as [string, Buffer][]) writeFileSync(this.#path + suffix, bytes)
    return this.restart()
  }

  async wipe(): Promise<Start> {
    return this.restore({ content: [] })
  }

  /** Overwrites a page of the file. */
  async damage(): Promise<Start> {
    await this.#closeStore()
    const bytes = readFileSync(this.#path)
    bytes.fill(0x5a, bytes.length / 2, bytes.length / 2 + 512)
    writeFileSync(this.#path, bytes)
    return this.restart()
  }

  async second(): Promise<ManagedBot> {
    return ManagedBot.open(this.#options)
  }

  async round(): Promise<void> {
    this.#options.clock.pass(BETWEEN_ROUNDS_MS)
    try {
      await this.take(await this.sync())
    } catch (error) {
      if (!isLost(error)) throw error
    }
  }

  async sync(): Promise<PendingSync> {
    const manager = this.#open()
    const begun = await manager.syncStarted()
    const since = manager.since === undefined ? '' : `&since=${encodeURIComponent(manager.since)}`
    return { answer: await this.#session.ok('GET', `/v3/sync?timeout=0${since}`), begun }
  }

  async take({ answer, begun }: PendingSync): Promise<void> {
    const manager = this.#open()
    const { messages, failures } = await manager.receiveSync(answer, begun as SyncTicket)
    for (const { id, plaintext } of messages) {
      if (this.#handled.has(id)) continue
      const { text } = JSON.parse(plaintext).content
      this.#handled.add(id)
      this.read.push(text)
      this.#options.onRead?.(id, text)
    }
    await this.#send()
    // After the manager's requests to the server, because their answers may explain a key.
    for (const { sender, verdict, key } of failures) {
      const [known] = key === undefined ? [] : await manager.explain(key)
      this.unreadable.push({ sender, cause: known?.verdict ?? verdict })
    }
    const dead = this.events.findLast(({ type }) => type === 'account_unusable')
    if (dead !== undefined && this.#unusableBecause === undefined) await this.#logInAsNewDevice(dead.message)
  }

  /** From the pickle in the store, independent of the manager. */
  async held(): Promise<ReadonlySet<string>> {
    const snapshot = await this.#store?.read()
    const { pickle } = JSON.parse(snapshot?.records.get('account/only') ?? '{}')
    return heldPublicKeys(auditPickle(pickle, PICKLE_KEY))
  }

  noteHandled(id: string): void {
    this.#handled.add(id)
  }

  async pool(): Promise<PoolContents> {
    return poolContents(await this.#direct.ok('GET', POOL))
  }

  async heals(): Promise<Heals> {
    return { events: this.events, history: (await this.#manager?.history()) ?? [] }
  }

  async close(): Promise<void> {
    await this.#closeStore()
  }

  async #send(): Promise<void> {
    const manager = this.#open()
    for (;;) {
      const requests = await manager.outgoingRequests()
      if (requests.length === 0) return
      for (const { id, method, path, body } of requests) {
        await manager.markRequestAsSent(id, await this.#answerTo(method, path, body))
      }
    }
  }

  async #answerTo(method: string, path: string, body: string | undefined): Promise<RequestAnswer> {
    try {
      return await this.#session.call(method, path.replace('/_matrix/client', ''), body)
    } catch (error) {
      if (!isLost(error)) throw error
      return { status: 0 }
    }
  }

  async #logInAsNewDevice(why: string): Promise<void> {
    this.#unusableBecause = why
    const { userId, baseUrl, deviceId } = this.#session
    const localpart = userId.slice(1, userId.indexOf(':'))
    this.#direct = await MatrixSession.signIn(baseUrl, localpart, `${deviceId}-2`)
    this.#session = this.#direct.through(this.network.fetch)
    this.#path += '-2'
    await this.restart()
    await this.round()
  }

  async #closeStore(): Promise<void> {
    await this.#store?.close()
    this.#store = undefined
    this.#manager = undefined
  }

  #open(): KeyManager {
    if (this.#manager === undefined) throw new Error('the store of the bot could not be opened')
    return this.#manager
  }
}
