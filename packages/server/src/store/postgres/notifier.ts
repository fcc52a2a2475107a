/**
 * Wakes syncs on every process. After a commit the refs go out in one NOTIFY, coalesced, on a connection of its own: inside
 * the claim's transaction it would cost two thirds of the throughput, and there it could fail it. Notifications may be
 * lost; the table `wakes` has the same in order of position and is read each second, so a wake is late at worst.
 */
import type { Client } from 'pg'
import type { DeviceRef, UserRef } from '../../session.ts'
import type { WakeListener } from '../../sync/port.ts'
import type { Woken } from './changes.ts'
import type { Postgres } from './database.ts'

const POLL_EVERY_MS = 1_000
const RECONNECT_AFTER_MS = 500
/** PostgreSQL's own limit is 8 000 bytes. */
const MAX_PAYLOAD_BYTES = 7_500
/** Wakes are kept this long for processes that were away: longer than any process stays away unnoticed. */
const KEEP_MS = 120_000
const WAKES_AT_ONCE = 1_000
const SWEPT_AT_ONCE = 5_000

export class Notifier {
  readonly #db: Postgres
  readonly #now: () => number
  readonly #onPoll: (stream: { readonly epoch: string; readonly fence: number }) => void
  readonly #listeners = new Set<WakeListener>()
  /** Of one schema: handles of another mean other devices. */
  #channel = ''
  #devices = new Set<DeviceRef>()
  #users = new Set<UserRef>()
  #client: Client | undefined
  #sending = false
  #closed = false
  #readUpTo = 0
  #timer: NodeJS.Timeout | undefined
  #sweptTs = 0
  /** On the clock of `performance.now`. */
  #polledAtMs = performance.now()
  #checking = false

  /** @param onPoll is told each second which epoch and fence the database has */
  constructor(
    db: Postgres,
    now: () => number,
    onPoll: (stream: { readonly epoch: string; readonly fence: number }) => void,
  ) {
    this.#db = db
    this.#now = now
    this.#onPoll = onPoll
  }

  /** Begins to hear of other processes' wakes. */
  async start(): Promise<void> {
    const row = await this.#db.one<{ pos: number; channel: string }>(
      `select pos, 'latchkey_' || left(current_schema(), 40) as channel from stream`,
    )
    if (row === undefined) throw new Error('the stream has no row')
    this.#readUpTo = row.pos
    this.#channel = row.channel
    await this.#listen()
    this.#schedulePoll()
  }

  subscribe(listener: WakeListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** After a commit: this process hears at once, the others by notification. Never fails, never waits. */
  tell({ devices, users }: Woken): void {
    if (devices.length + users.length === 0) return
    this.#wake(devices, users)
    for (const device of devices) this.#devices.add(device)
    for (const user of users) this.#users.add(user)
    void this.#send()
  }

  /** The fence was raised: this process's syncs hear of it. Each process finds out by itself. */
  tellEveryone(): void {
    for (const listener of this.#listeners) listener.everyone()
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#client?.end().catch(() => {})
  }

  #wake(devices: readonly DeviceRef[], users: readonly UserRef[]): void {
    for (const listener of this.#listeners) {
      for (const device of devices) listener.device(device)
      for (const user of users) listener.user(user)
    }
  }

  /** What was told while the last notification went out goes in the next. */
  async #send(): Promise<void> {
    if (this.#sending) return
    this.#sending = true
    while (this.#devices.size + this.#users.size > 0 && this.#client !== undefined) {
      const payload = JSON.stringify([[...this.#devices], [...this.#users]])
      this.#devices = new Set()
      this.#users = new Set()
      // Too long to say: the others find it in the table within the second.
      if (payload.length > MAX_PAYLOAD_BYTES) continue
      await this.#client.query('select pg_notify($1, $2)', [this.#channel, payload]).catch(() => {})
    }
    this.#devices.clear()
    this.#users.clear()
    this.#sending = false
  }

  async #listen(): Promise<void> {
    const client = this.#db.newClient()
    client.on('notification', ({ payload }) => this.#heard(payload))
    client.on('error', () => this.#lost(client))
    client.on('end', () => this.#lost(client))
    try {
      await client.connect()
      await client.query(this.#listenTo(client))
      if (this.#closed) throw new Error('closed meanwhile')
    } catch (error) {
      // On a standby one can connect, and not listen.
      await client.end().catch(() => {})
      throw error
    }
    this.#client = client
  }

  #listenTo(client: Client): string {
    return `listen ${client.escapeIdentifier(this.#channel)}`
  }

  #heard(payload: string | undefined): void {
    try {
      const [devices, users] = JSON.parse(payload ?? '') as [DeviceRef[], UserRef[]]
      this.#wake(devices, users)
    } catch {
      // Somebody else's notification on our channel: the table says what is true.
    }
  }

  /** Without a listener the poll goes on; a new one is tried until there is one. */
  #lost(client: Client): void {
    if (this.#closed || this.#client !== client) return
    this.#client = undefined
    const retry = (): void => {
      if (this.#closed) return
      this.#listen().catch(() => setTimeout(retry, RECONNECT_AFTER_MS).unref())
    }
    setTimeout(retry, RECONNECT_AFTER_MS).unref()
  }

  #schedulePoll(): void {
    if (this.#closed) return
    this.#timer = setTimeout(() => {
      this.#poll().then(
        () => this.#schedulePoll(),
        () => this.#schedulePoll(),
      )
    }, POLL_EVERY_MS)
    this.#timer.unref()
  }

  async #poll(): Promise<void> {
    this.#checkListener()
    // What is older than this may have been swept before it was read.
    const wasAway = performance.now() - this.#polledAtMs > KEEP_MS / 2
    await this.#readWakes()
    const stream = await this.#db.one<{ epoch: string; fence: number; pos: number }>(
      `select epoch, fence, pos from stream`,
    )
    if (stream !== undefined) {
      this.#onPoll(stream)
      // A database that went back has lower positions; what it wakes from here on is not to be missed.
      if (stream.pos < this.#readUpTo) this.#readUpTo = stream.pos
    }
    this.#polledAtMs = performance.now()
    if (wasAway) this.tellEveryone()
    await this.#sweepWakes()
  }

  async #readWakes(): Promise<void> {
    for (let read = WAKES_AT_ONCE; read === WAKES_AT_ONCE; ) {
      const rows = await this.#db.all<{ pos: number; devices: string[]; users: string[] }>(
        `select pos, devices::text[], users::text[] from wakes where pos > $1 order by pos limit ${WAKES_AT_ONCE}`,
        this.#readUpTo,
      )
      for (const { pos, devices, users } of rows) {
        this.#readUpTo = pos
        this.#wake(
          devices.map((ref) => Number(ref) as DeviceRef),
          users.map((ref) => Number(ref) as UserRef),
        )
      }
      read = rows.length
    }
  }

  async #sweepWakes(): Promise<void> {
    const now = this.#now()
    if (Math.abs(now - this.#sweptTs) < KEEP_MS / 4) return
    this.#sweptTs = now
    for (let swept = SWEPT_AT_ONCE; swept === SWEPT_AT_ONCE; ) {
      swept = await this.#db.run(
        `delete from wakes where pos in (
           select pos from wakes where ts < $1 order by pos limit ${SWEPT_AT_ONCE} for update skip locked)`,
        now - KEEP_MS,
      )
    }
  }

  /** A network that has fallen silent says nothing to who only listens. */
  #checkListener(): void {
    const client = this.#client
    if (client === undefined || this.#checking) return
    this.#checking = true
    const done = (): void => {
      this.#checking = false
    }
    client.query(this.#listenTo(client)).then(done, () => {
      done()
      this.#lost(client)
      client.end().catch(() => {})
    })
  }
}
