/**
 * What a transaction makes known: positions in the stream, and who is to be woken.
 *
 * Everything that a sync reports gets its position in the last moments of the transaction, under the lock of the one
 * row of `stream`, which is held until the commit: a position never becomes visible after a higher one (a shared sequence
 * would let a sync's token pass a message that commits later). It is also the last lock that any transaction takes:
 *
 *     users, by number -> devices, by number -> pools, by number -> (sent transactions, by ID) -> stream
 *
 * Whoever takes locks in this order cannot deadlock.
 */
import type { Delivery } from '../../messages/inbox.ts'
import type { DeviceRef, Position, UserRef } from '../../session.ts'
import type { Queries } from './database.ts'

export type Woken = { readonly devices: readonly DeviceRef[]; readonly users: readonly UserRef[] }

export class Changes {
  #devices = new Set<DeviceRef>()
  #users = new Set<UserRef>()
  #signals = new Set<DeviceRef>()
  #lists = new Set<UserRef>()
  #pairs: { readonly observer: UserRef; readonly target: UserRef }[] = []
  #deliveries: Delivery[] = []
  #writes: ((tx: Queries, position: () => Position) => Promise<unknown>)[] = []
  #positions = 0

  /** Wakes a device's syncs after the commit. */
  wakeDevice(device: DeviceRef): void {
    this.#devices.add(device)
  }

  /** Wakes every device of a user after the commit. */
  wakeUser(user: UserRef): void {
    this.#users.add(user)
  }

  /** Gives a device something to hear of: a position that its sync has not passed. Its row is locked already. */
  signal(device: DeviceRef): void {
    this.#signals.add(device)
    this.wakeDevice(device)
  }

  /** Marks a user's device list as changed, for herself and everyone who asked for her keys. Her row is locked already. */
  listChanged(user: UserRef): void {
    this.#lists.add(user)
    this.wakeUser(user)
  }

  /** Marks it as changed for one observer alone. */
  listChangedFor(observer: UserRef, target: UserRef): void {
    this.#pairs.push({ observer, target })
    this.wakeUser(observer)
  }

  /** Puts messages into inboxes, in this order. The devices are locked already, and are to be woken beside. */
  deliver(deliveries: readonly Delivery[]): void {
    this.#deliveries = [...this.#deliveries, ...deliveries]
  }

  /** Has something else written with positions of its own, `count` of them at most. */
  write(count: number, write: (tx: Queries, position: () => Position) => Promise<unknown>): void {
    this.#positions += count
    this.#writes.push(write)
  }

  /** With a savepoint: what brings this back to what it is now, for when the rest is undone. */
  checkpoint(): () => void {
    const [devices, users] = [new Set(this.#devices), new Set(this.#users)]
    const [signals, lists] = [new Set(this.#signals), new Set(this.#lists)]
    const [pairs, writes, positions] = [[...this.#pairs], [...this.#writes], this.#positions]
    const deliveries = this.#deliveries
    return () => {
      this.#devices = devices
      this.#users = users
      this.#signals = signals
      this.#lists = lists
      this.#pairs = pairs
      this.#deliveries = deliveries
      this.#writes = writes
      this.#positions = positions
    }
  }

  /** The last step before the commit. Returns who is to be woken after it. */
  async finish(tx: Queries, now: number): Promise<Woken> {
    const together = this.#signals.size + this.#deliveries.length
    const own = together + this.#lists.size + this.#pairs.length
    const wakes = this.#devices.size + this.#users.size > 0
    const count = own + this.#positions + (wakes ? 1 : 0)
    if (count === 0) return NOBODY
    // Who observes a list is known only under the lock; otherwise the wake needs no statement of its own.
    const wakesAtOnce = wakes && this.#lists.size === 0
    const end = await this.#takePositions(tx, count, wakesAtOnce ? now : undefined)
    let last = end - count + together
    const position = (): Position => ++last
    for (const user of this.#lists) await this.#changeList(tx, user, position())
    for (const { observer, target } of this.#pairs) {
      await tx.run(
        `insert into tracked_users (observer_num, target_num, pos) values ($1, $2, $3)
         on conflict (observer_num, target_num) do update set pos = excluded.pos`,
        observer,
        target,
        position(),
      )
    }
    for (const write of this.#writes) await write(tx, position)
    const woken = { devices: [...this.#devices], users: [...this.#users] }
    if (wakes && !wakesAtOnce) {
      await tx.run(
        `insert into wakes (pos, ts, devices, users) values ($1, $2, $3, $4)`,
        end,
        now,
        woken.devices,
        woken.users,
      )
    }
    return woken
  }

  /**
   * Locks the stream and takes `count` positions; in the same statement, because the lock keeps everyone else waiting, it
   * gives the first of them to signals and messages, and the last one to the wake. Returns the last one.
   */
  async #takePositions(tx: Queries, count: number, wakeTs: number | undefined): Promise<Position> {
    const values: unknown[] = [count]
    const parameter = (value: unknown): string => `$${values.push(value)}`
    const steps = [`ended as (update stream set pos = pos + $1::bigint returning pos)`]
    if (this.#signals.size > 0) {
      const devices = parameter([...this.#signals])
      steps.push(`signalled as (
        update devices set signal_pos = ended.pos - $1::bigint + place
        from ended cross join unnest(${devices}::bigint[]) with ordinality as signal (device, place)
        where device_num = device)`)
    }
    if (this.#deliveries.length > 0) {
      const before = parameter(this.#signals.size)
      const devices = parameter(this.#deliveries.map(({ device }) => device))
      const events = parameter(this.#deliveries.map(({ event }) => event))
      const lengths = parameter(this.#deliveries.map(({ length }) => length))
      steps.push(`delivered as (
        insert into inbox (device_num, pos, event, length)
        select device, ended.pos - $1::bigint + ${before}::bigint + place, event, length
        from ended cross join unnest(${devices}::bigint[], ${events}::text[], ${lengths}::int[])
          with ordinality as message (device, event, length, place))`)
    }
    if (wakeTs !== undefined) {
      const [ts, devices, users] = [wakeTs, [...this.#devices], [...this.#users]].map(parameter)
      steps.push(`woken as (
        insert into wakes (pos, ts, devices, users)
        select pos, ${ts}::bigint, ${devices}::bigint[], ${users}::bigint[] from ended)`)
    }
    const ended = await tx.one<{ pos: Position }>(`with ${steps.join(', ')} select pos from ended`, ...values)
    if (ended === undefined) throw new Error('the stream has no row')
    return ended.pos
  }

  async #changeList(tx: Queries, user: UserRef, position: Position): Promise<void> {
    await tx.run(`update users set list_pos = $1 where user_num = $2`, position, user)
    const observers = await tx.all<{ observer_num: UserRef }>(
      `select observer_num from tracked_users where target_num = $1`,
      user,
    )
    for (const { observer_num } of observers) this.wakeUser(observer_num)
  }
}

const NOBODY: Woken = { devices: [], users: [] }
