/**
 * A bot on a raw libolm account as many are written: it generates keys, sends them and saves them afterwards; it
 * believes every count and "fallback used" of a server at once; it replaces an unreadable store by a new account. Its
 * mistakes occur in real clients: riot-android#1289, hydrogen#185, element-ios#7480, matrix-rust-sdk#1415.
 */
import { canonicalJson } from '@latchkey/protocol'
import type { AnyJson, MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { BETWEEN_ROUNDS_MS, type Clock } from './clock.ts'
import {
  type Backup,
  type Heals,
  type LibolmDevice,
  type PendingSync,
  POOL,
  poolContents,
  type PoolContents,
  type Start,
  type Unreadable,
} from './device.ts'
import type { Disk } from './disk.ts'
import type { Guard } from './guard-of.ts'
import type { Olm } from './load-olm.ts'
import { type FaultyNetwork, isLost } from './network.ts'
import { auditPickle, heldPublicKeys } from './pickle-audit.ts'

type Account = InstanceType<Olm['Account']>
type Session = InstanceType<Olm['Session']>

/** Optional mistakes of a bot. */
export type Habits = {
  /** Removes the one-time key when a message names it, before the message is decrypted. */
  readonly removesKeyFirst?: boolean
  /** Rotates the fallback key after a week, and if its time is in the future. */
  readonly rotatesByAge?: boolean
  /** Saves sessions and sync token before its app gets the messages; new keys are still saved after sending. */
  readonly readsOnce?: boolean
}

export type BotOptions = {
  readonly olm: Olm
  /** Session for its requests, which are subject to the faults of `network`. */
  readonly session: MatrixSession
  readonly network: FaultyNetwork
  readonly disk: Disk
  readonly habits?: Habits
  readonly clock: Clock
  /** Sends its requests instead of `network`; the guard passes them on to `network`. */
  readonly guard?: Guard
  /** Called with each message; only its text identifies it. */
  readonly onRead?: (id: string, text: string) => void
}

type Saved = {
  readonly account: string
  readonly sessions: readonly { readonly sender: string; readonly pickle: string }[]
  readonly since: string | undefined
  readonly rotatedAt: number
}

const PASSPHRASE = 'lab'
const ALGORITHMS = ['m.olm.v1.curve25519-aes-sha2', 'm.megolm.v1.aes-sha2']
const CURVE = 'signed_curve25519'
const WANTED_ON_SERVER = 50
const WEEK_MS = 7 * 86_400_000

export class NaiveBot implements LibolmDevice {
  readonly network: FaultyNetwork
  readonly read: string[] = []
  readonly unreadable: Unreadable[] = []
  readonly #olm: Olm
  readonly #direct: MatrixSession
  readonly #session: MatrixSession
  readonly #options: BotOptions
  readonly #disk: Disk
  readonly #habits: Habits
  readonly #now: () => number
  #account: Account
  #sessions: { sender: string; session: Session }[] = []
  #since: string | undefined
  #rotatedAt: number | undefined
  #isIdentityPublished = false
  #isClosed = false

  constructor(options: BotOptions) {
    const { olm, session, network, disk, habits = {}, clock } = options
    this.#options = options
    this.#olm = olm
    this.#direct = session
    this.#session = session.through(options.guard?.fetch ?? network.fetch)
    this.network = network
    this.#disk = disk
    this.#habits = habits
    this.#now = clock.now
    this.#account = new olm.Account()
    this.#load()
  }

  get userId(): string {
    return this.#session.userId
  }

  get deviceId(): string {
    return this.#session.deviceId
  }

  /** The process ends, and its supervisor restarts it from the saved state. */
  async restart(): Promise<Start> {
    this.#load()
    return {}
  }

  async backUp(): Promise<Backup> {
    return { content: this.#disk.read() }
  }

  async restore({ content }: Backup): Promise<Start> {
    this.#disk.write(String(content))
    return this.restart()
  }

  async wipe(): Promise<Start> {
    return this.restore({ content: '' })
  }

  async damage(): Promise<Start> {
    const saved = this.#disk.read() ?? ''
    return this.restore({ content: saved.slice(0, saved.length / 2) })
  }

  async second(): Promise<NaiveBot> {
    return new NaiveBot(this.#options)
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
    const since = this.#since === undefined ? '' : `&since=${encodeURIComponent(this.#since)}`
    return { answer: await this.#session.ok('GET', `/v3/sync?timeout=0${since}`), begun: undefined }
  }

  async take({ answer }: PendingSync): Promise<void> {
    const messages: string[] = []
    for (const event of answer.to_device?.events ?? []) {
      const text = await this.#receive(event)
      if (text !== undefined) messages.push(text)
    }
    this.#since = answer.next_batch
    if (this.#habits.readsOnce === true) this.#save()
    for (const text of messages) {
      this.read.push(text)
      this.#options.onRead?.('', text)
    }
    const unused: readonly string[] = answer.device_unused_fallback_key_types ?? []
    await this.#publish(answer.device_one_time_keys_count?.[CURVE] ?? 0, this.#wantsFallback(unused))
    this.#save()
  }

  async held(): Promise<ReadonlySet<string>> {
    return heldPublicKeys(auditPickle(this.#account.pickle(PASSPHRASE), PASSPHRASE))
  }

  async pool(): Promise<PoolContents> {
    return poolContents(await this.#direct.ok('GET', POOL))
  }

  async heals(): Promise<Heals | undefined> {
    return this.#isClosed ? undefined : this.#options.guard?.heals()
  }

  async close(): Promise<void> {
    // Freeing twice corrupts libolm's memory.
    if (this.#isClosed) return
    this.#isClosed = true
    await this.#options.guard?.close()
    this.#account.free()
    for (const { session } of this.#sessions) session.free()
    this.#sessions = []
  }

  #load(): void {
    this.#account = new this.#olm.Account()
    this.#sessions = []
    this.#since = undefined
    this.#isIdentityPublished = false
    try {
      const saved: Saved = JSON.parse(this.#disk.read() ?? '')
      this.#account.unpickle(PASSPHRASE, saved.account)
      this.#sessions = saved.sessions.map(({ sender, pickle }) => {
        const session = new this.#olm.Session()
        session.unpickle(PASSPHRASE, pickle)
        return { sender, session }
      })
      this.#since = saved.since
      this.#rotatedAt = saved.rotatedAt
      this.#isIdentityPublished = true
    } catch {
      this.#account = new this.#olm.Account()
      this.#account.create()
      this.#rotatedAt = undefined
    }
  }

  #save(): void {
    const saved: Saved = {
      account: this.#account.pickle(PASSPHRASE),
      sessions: this.#sessions.map(({ sender, session }) => ({ sender, pickle: session.pickle(PASSPHRASE) })),
      since: this.#since,
      rotatedAt: this.#rotatedAt ?? this.#now(),
    }
    this.#disk.write(JSON.stringify(saved))
  }

  #wantsFallback(unused: readonly string[]): boolean {
    if (this.#rotatedAt === undefined) return true
    const age = this.#now() - this.#rotatedAt
    return this.#habits.rotatesByAge === true ? age > WEEK_MS || age < 0 : !unused.includes(CURVE)
  }

  async #publish(count: number, wantsFallback: boolean): Promise<void> {
    if (count < WANTED_ON_SERVER) this.#account.generate_one_time_keys(WANTED_ON_SERVER - count)
    if (wantsFallback) {
      this.#account.generate_fallback_key()
      this.#rotatedAt = this.#now()
    }
    const oneTimeKeys = this.#signed(JSON.parse(this.#account.one_time_keys()).curve25519)
    const fallbackKeys = wantsFallback
      ? this.#signed(JSON.parse(this.#account.unpublished_fallback_key()).curve25519, { fallback: true })
      : {}
    if (Object.keys(oneTimeKeys).length === 0 && !wantsFallback && this.#isIdentityPublished) return
    const { status } = await this.#session.call('POST', '/v3/keys/upload', {
      ...(!this.#isIdentityPublished && { device_keys: this.#deviceKeys() }),
      one_time_keys: oneTimeKeys,
      fallback_keys: fallbackKeys,
    })
    if (status !== 200) return
    this.#isIdentityPublished = true
    this.#account.mark_keys_as_published()
  }

  async #receive(event: AnyJson): Promise<string | undefined> {
    const ciphertext = event.content?.ciphertext?.[this.#identity().curve25519]
    if (event.type !== 'm.room.encrypted' || ciphertext === undefined) return undefined
    const { sender, content } = event
    const text = this.#decrypt(content.sender_key, ciphertext.type, ciphertext.body)
    if (text !== undefined) return JSON.parse(text).content.text
    this.unreadable.push({ sender, cause: await this.#options.guard?.explain(event) })
    return undefined
  }

  #decrypt(sender: string, type: number, body: string): string | undefined {
    for (const known of this.#sessions) {
      if (known.sender !== sender) continue
      try {
        return known.session.decrypt(type, body)
      } catch {
        // Not of this session: tries the next one, then a new one.
      }
    }
    if (type !== 0) return undefined
    const session = new this.#olm.Session()
    try {
      session.create_inbound_from(this.#account, sender, body)
      if (this.#habits.removesKeyFirst === true) this.#account.remove_one_time_keys(session)
      const text = session.decrypt(type, body)
      if (this.#habits.removesKeyFirst !== true) this.#account.remove_one_time_keys(session)
      this.#sessions.push({ sender, session })
      return text
    } catch {
      session.free()
      return undefined
    }
  }

  #identity(): { readonly curve25519: string; readonly ed25519: string } {
    return JSON.parse(this.#account.identity_keys())
  }

  #deviceKeys(): AnyJson {
    const { curve25519, ed25519 } = this.#identity()
    return this.#sign({
      user_id: this.userId,
      device_id: this.deviceId,
      algorithms: ALGORITHMS,
      keys: { [`curve25519:${this.deviceId}`]: curve25519, [`ed25519:${this.deviceId}`]: ed25519 },
    })
  }

  #signed(keys: Readonly<Record<string, string>>, more: { fallback?: true } = {}): Record<string, AnyJson> {
    return Object.fromEntries(
      Object.entries(keys).map(([id, key]) => [`${CURVE}:${id}`, this.#sign({ key, ...more })]),
    )
  }

  #sign(object: AnyJson): AnyJson {
    const signature = this.#account.sign(canonicalJson(object))
    return { ...object, signatures: { [this.userId]: { [`ed25519:${this.deviceId}`]: signature } } }
  }
}
