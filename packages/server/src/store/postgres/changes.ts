/**
 * The stream positions of a transaction, and the devices and users that it wakes.
 *
 * Each change that a sync reports gets its position at the end of the transaction, under the lock of the one row of
 * `stream`, which is held until the commit. So no position becomes visible after a higher one; with a sequence, a sync
 * token could pass a message that commits later. It is the last lock of every transaction:
 *
 *     (authentication session) -> users, by number -> devices, by number -> pools, by number
 *       -> (sent transactions, by ID) -> stream
 *
 * Transactions that take their locks in this order cannot deadlock with each other.
 */
import type { Delivery } from '../../messages/inbox.ts'
import type { DeviceRef, Position, UserRef } from '../../session.ts'
import type { Transaction } from './database.ts'
import type { LastStep, LockedDeviceRef, LockedUser, RecipientRef } from './locks.ts'

export type Woken = {
  readonly devices: readonly DeviceRef[]
  readonly users: readonly UserRef[]
  /** Position of their row in `wakes`. */
  readonly position: Position
}

/** A message to a device that is locked against removal. */
type LockedDelivery = Delivery<RecipientRef>

type LastWrite = (last: LastStep, position: () => Position) => Promise<unknown>

export class Changes {
  #devices = new Set<DeviceRef>()
  #users = new Set<UserRef>()
  #signals = new Set<DeviceRef>()
  #lists = new Set<UserRef>()
  #pairs: { readonly observer: UserRef; readonly target: UserRef }[] = []
  #deliveries: LockedDelivery[] = []
  #writes: LastWrite[] = []
  #positions = 0

  /** Wakes a device's syncs after the commit. */
  wakeDevice(device: DeviceRef): void {
    this.#devices.add(device)
  }

  /** Wakes every device of a user after the commit. */
  wakeUser(user: UserRef): void {
    this.#users.add(user)
  }

  /** Gives a device a signal: a position that its sync has not passed. */
  signal(device: LockedDeviceRef): void {
    this.#signals.add(device)
    this.wakeDevice(device)
  }

  /** Marks a user's device list as changed, for the user and for all who track it. */
  listChanged(user: LockedUser): void {
    this.#lists.add(user)
    this.wakeUser(user)
  }

  /** Marks a user's device list as changed for one observer only. */
  listChangedFor(observer: UserRef, target: UserRef): void {
    this.#pairs.push({ observer, target })
    this.wakeUser(observer)
  }

  /** Puts messages into inboxes, in this order, and wakes their devices after the commit. */
  deliver(deliveries: readonly LockedDelivery[]): void {
    this.#deliveries = [...this.#deliveries, ...deliveries]
    for (const { device } of deliveries) this.wakeDevice(device)
  }

  /** Adds another write under the lock of the stream, with `count` positions at most. */
  write(count: number, write: LastWrite): void {
    this.#positions += count
    this.#writes.push(write)
  }

  /** The last step before the commit. Returns the devices and users to wake after it. */
  async finish(tx: Transaction, now: number): Promise<Woken> {
    const together = this.#signals.size + this.#deliveries.length
    const own = together + this.#lists.size + this.#pairs.length
    const wakes = this.#devices.size + this.#users.size > 0
    const count = own + this.#positions + (wakes ? 1 : 0)
    if (count === 0) return NONE_WOKEN
    // The observers of a list are known only under the lock; otherwise the wake needs no statement of its own.
    const wakesAtOnce = wakes && this.#lists.size === 0
    const { last, end } = await this.#takePositions(tx, count, wakesAtOnce ? now : undefined)
    let previous = end - count + together
    const position = (): Position => ++previous
    for (const user of this.#lists) await this.#changeList(last, user, position())
    for (const { observer, target } of this.#pairs) {
      await last.run(
        `insert into tracked_users (observer_num, target_num, pos) values ($1, $2, $3)
         on conflict (observer_num, target_num) do update set pos = excluded.pos`,
        observer,
        target,
        position(),
      )
    }
    for (const write of this.#writes) await write(last, position)
    const woken = { devices: [...this.#devices], users: [...this.#users], position: end }
    if (wakes && !wakesAtOnce) {
      await last.run(
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
   * Locks the stream and takes `count` positions, of which `end` is the last. The same statement gives the first ones
   * to signals and messages and the last one to the wake, because all other writes wait for the lock.
   */
  async #takePositions(
    tx: Transaction,
    count: number,
    wakeTs: number | undefined,
  ): Promise<{ readonly last: LastStep; readonly end: Position }> {
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
      const senders = parameter(this.#deliveries.map(({ sender }) => sender))
      steps.push(`delivered as (
        insert into inbox (device_num, pos, event, length, sender_num)
        select device, ended.pos - $1::bigint + ${before}::bigint + place, event, length, sender
        from ended cross join unnest(${devices}::bigint[], ${events}::text[], ${lengths}::int[], ${senders}::bigint[])
          with ordinality as message (device, event, length, sender, place))`)
    }
    if (wakeTs !== undefined) {
      const [ts, devices, users] = [wakeTs, [...this.#devices], [...this.#users]].map(parameter)
      steps.push(`woken as (
        insert into wakes (pos, ts, devices, users)
        select pos, ${ts}::bigint, ${devices}::bigint[], ${users}::bigint[] from ended)`)
    }
    const ended = await tx.one<{ pos: Position }>(`with ${steps.join(', ')} select pos from ended`, ...values)
    if (ended === undefined) throw new Error('the stream has no row')
    return { last: tx as LastStep, end: ended.pos }
  }

  async #changeList(last: LastStep, user: UserRef, position: Position): Promise<void> {
    await last.run(`update users set list_pos = $1 where user_num = $2`, position, user)
    const observers = await last.all<{ observer_num: UserRef }>(
      `select observer_num from tracked_users where target_num = $1`,
      user,
    )
    for (const { observer_num } of observers) this.wakeUser(observer_num)
  }
}

const NONE_WOKEN: Woken = { devices: [], users: [], position: 0 }
