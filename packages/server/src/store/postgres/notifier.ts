/**
 * Wakes syncs on every process. After commits the refs are sent in one NOTIFY on a separate connection: inside a
 * claim's transaction it would cost two thirds of the throughput, and its failure would fail the claim. Notifications
 * may be lost, so the table `wakes` has the same refs in order of position. It is read each second, so a wake is late
 * at worst.
 */
import type { Client } from 'pg'
import type { DeviceRef, Position, UserRef } from '../../session.ts'
import type { WakeListener } from '../../sync/port.ts'
import type { Woken } from './changes.ts'
import type { Postgres } from './database.ts'
import { SERVER_START } from './verified-starts.ts'

const POLL_EVERY_MS = 1_000
const RECONNECT_AFTER_MS = 500
/** PostgreSQL's own limit is 8 000 bytes. */
const MAX_PAYLOAD_BYTES = 7_500
/**
 * Retention of wakes, for processes that were disconnected. One that was away for half of it wakes all of its syncs.
 */
const KEEP_MS = 120_000
const WAKES_AT_ONCE = 1_000
const SWEPT_AT_ONCE = 5_000

/** The row that each process reads each second. */
export type PolledStream = { readonly epoch: string; readonly fence: number; readonly start: string }

export class Notifier {
  readonly #db: Postgres
  readonly #now: () => number
  readonly #onPoll: (stream: PolledStream) => void
  readonly #listeners = new Set<WakeListener>()
  /** One channel per schema, because refs of another schema mean other devices. */
  #channel = ''
  #devices = new Set<DeviceRef>()
  #users = new Set<UserRef>()
  #positions: Position[] = []
  /** Rows that the poll has not read yet and that have woken their syncs. */
  readonly #known = new Set<Position>()
  #client: Client | undefined
  #sending = false
  #closed = false
  #readUpTo = 0
  #timer: NodeJS.Timeout | undefined
  #sweptTs = 0
  /** On the clock of `performance.now`. */
  #polledAtMs = performance.now()
  #checking = false

  /** @param onPoll receives the state of the database each second */
  constructor(db: Postgres, now: () => number, onPoll: (stream: PolledStream) => void) {
    this.#db = db
    this.#now = now
    this.#onPoll = onPoll
  }

  /** Begins to receive the wakes of other processes. */
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

  /** After a commit: wakes syncs of this process at once and notifies the others. Does not fail or wait. */
  notify({ devices, users, position }: Woken): void {
    if (devices.length + users.length === 0) return
    this.#wakeAt([position], devices, users)
    this.#positions.push(position)
    for (const device of devices) this.#devices.add(device)
    for (const user of users) this.#users.add(user)
    void this.#send()
  }

  /** After a raise of the fence: wakes all syncs of this process. Each process detects the raise by itself. */
  notifyAll(): void {
    for (const listener of this.#listeners) listener.everyone()
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#client?.end().catch(() => {})
  }

  /** Wakes syncs for the rows at these positions. The poll skips those rows: each sync is woken once. */
  #wakeAt(positions: readonly Position[], devices: readonly DeviceRef[], users: readonly UserRef[]): void {
    for (const position of positions) if (position > this.#readUpTo) this.#known.add(position)
    this.#wake(devices, users)
  }

  #wake(devices: readonly DeviceRef[], users: readonly UserRef[]): void {
    for (const listener of this.#listeners) {
      for (const device of devices) listener.device(device)
      if (users.length > 0) listener.users(users)
    }
  }

  /** Refs that arrive while a notification is being sent go in the next one. */
  async #send(): Promise<void> {
    if (this.#sending) return
    this.#sending = true
    while (this.#devices.size + this.#users.size > 0 && this.#client !== undefined) {
      const payload = JSON.stringify([[...this.#devices], [...this.#users], this.#positions])
      this.#devices = new Set()
      this.#users = new Set()
      this.#positions = []
      // Too long for a notification: the others read the table within one second.
      if (payload.length > MAX_PAYLOAD_BYTES) continue
      await this.#client.query('select pg_notify($1, $2)', [this.#channel, payload]).catch(() => {})
    }
    this.#devices.clear()
    this.#users.clear()
    this.#positions = []
    this.#sending = false
  }

  async #listen(): Promise<void> {
    const client = this.#db.newClient()
    client.on('notification', ({ payload }) => this.#onNotification(payload))
    client.on('error', () => this.#lost(client))
    client.on('end', () => this.#lost(client))
    try {
      await client.connect()
      await client.query(this.#listenTo(client))
      if (this.#closed) throw new Error('closed meanwhile')
    } catch (error) {
      // A standby accepts connections and refuses LISTEN.
      await client.end().catch(() => {})
      throw error
    }
    this.#client = client
  }

  #listenTo(client: Client): string {
    return `listen ${client.escapeIdentifier(this.#channel)}`
  }

  #onNotification(payload: string | undefined): void {
    try {
      // Processes of earlier versions send no positions.
      const [devices, users, positions = []] = JSON.parse(payload ?? '') as [
        DeviceRef[],
        UserRef[],
        Position[]?,
      ]
      const isWoken = (position: Position): boolean => position <= this.#readUpTo || this.#known.has(position)
      // This process receives its own notifications as well.
      if (positions.length > 0 && positions.every(isWoken)) return
      this.#wakeAt(positions, devices, users)
    } catch {
      // Not a notification of Latchkey; wakes are read from the table as well.
    }
  }

  /** Reconnects until a listener is connected. The poll continues meanwhile. */
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
    // Older wakes may have been swept before this process read them.
    const wasAway = performance.now() - this.#polledAtMs > KEEP_MS / 2
    await this.#readWakes()
    const stream = await this.#db.one<PolledStream & { readonly pos: number }>(
      `select epoch, fence, pos, ${SERVER_START} as start from stream`,
    )
    if (stream !== undefined) {
      this.#onPoll(stream)
      // A rolled-back database has lower positions; its next wakes must be read as well.
      if (stream.pos < this.#readUpTo) {
        this.#readUpTo = stream.pos
        this.#known.clear()
      }
      for (const position of this.#known) if (position <= this.#readUpTo) this.#known.delete(position)
    }
    this.#polledAtMs = performance.now()
    if (wasAway) this.notifyAll()
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
        if (this.#known.delete(pos)) continue
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

  /** Sends a statement, because a client that only listens does not notice a silent network. */
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
