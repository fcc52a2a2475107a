/**
 * What the operations of the SQLite store share: the connection, the commit queue, the pools in memory, stream
 * positions and wake-ups. Each operation is a file of this folder, a function that takes the core first.
 */
import { randomBytes } from 'node:crypto'
import { ConflictMemory } from '../../pool/conflict.ts'
import type { DepletionDefence } from '../../pool/depletion.ts'
import type { PoolPolicy } from '../../pool/policy.ts'
import type { DeviceRef, Position, UserRef } from '../../session.ts'
import { Claimers } from './claimers.ts'
import { CommitQueue } from './commit-queue.ts'
import type { Database } from './database.ts'
import { Inboxes, type InboxLimits } from './inboxes.ts'
import { KeyStates } from './key-states.ts'
import { SessionCache } from './session-cache.ts'
import { LastSeen } from './last-seen.ts'
import { News } from './news.ts'
import { Offers } from '../offers.ts'
import { Wakes } from './wakes.ts'

export type Core = {
  readonly db: Database
  readonly queue: CommitQueue
  readonly keys: KeyStates
  readonly offers: Offers
  readonly positions: Positions
  readonly wakes: Wakes
  readonly news: News
  readonly policy: PoolPolicy
  readonly conflicts: ConflictMemory
  /** Undefined: claims are not limited. */
  readonly depletion: DepletionDefence | undefined
  readonly inboxes: Inboxes
  readonly claimers: Claimers
  readonly lastSeen: LastSeen
  readonly sessions: SessionCache
  readonly limits: RowLimits
}

/** How many rows of a kind one user or device may make. */
export type RowLimits = InboxLimits & {
  readonly filtersPerUser: number
  readonly accountDataTypesPerUser: number
  readonly accountDataTotalBytes: number
  readonly devicesPerUser: number
}

export function createCore(
  db: Database,
  policy: PoolPolicy,
  limits: RowLimits,
  depletion?: DepletionDefence,
): Core {
  const epoch = readOrCreateMeta(db, 'epoch', () => randomBytes(12).toString('base64url'))
  const keys = new KeyStates(db, epoch, policy.claimOrder)
  const positions = new Positions(db)
  const news = new News(db)
  const wakes = new Wakes(news)
  const inboxes = new Inboxes(db, limits)
  const claimers = new Claimers(db)
  const queue = new CommitQueue(db, {
    beforeCommit: () => {
      keys.settleSome()
      positions.save()
    },
    afterCommit: () => wakes.emit(),
    onRollback: () => {
      positions.reload()
      wakes.discard()
      news.forgetAll()
      inboxes.forgetAll()
      claimers.forgetAll()
      keys.reload()
    },
  })
  keys.reload()
  const conflicts = new ConflictMemory()
  return {
    db,
    queue,
    keys,
    offers: new Offers(),
    positions,
    wakes,
    news,
    policy,
    conflicts,
    depletion,
    inboxes,
    claimers,
    lastSeen: new LastSeen(db, queue),
    sessions: new SessionCache(),
    limits,
  }
}

/** A value of the `meta` table, made on first use. */
export function readOrCreateMeta(db: Database, key: string, create: () => string): string {
  db.run(`insert into meta (key, value) values (?, ?) on conflict do nothing`, key, create())
  const row = db.one<{ value: string }>(`select value from meta where key = ?`, key)
  if (row === undefined) throw new Error(`meta.${key} vanished`)
  return row.value
}

/**
 * Stream positions: one counter for everything that a sync reports. They are taken inside transactions, which SQLite
 * runs one at a time, so a position never becomes visible after a higher one.
 */
export class Positions {
  readonly #db: Database
  #last = 0
  #saved = 0

  constructor(db: Database) {
    this.#db = db
    this.reload()
  }

  /** The highest position of all commits so far. */
  get last(): Position {
    return this.#last
  }

  next(): Position {
    return ++this.#last
  }

  /** Keeps the counter in the transaction that took from it. */
  save(): void {
    if (this.#last === this.#saved) return
    this.#db.run(
      `insert into meta (key, value) values ('position', ?1) on conflict do update set value = ?1`,
      this.#last,
    )
    this.#saved = this.#last
  }

  reload(): void {
    this.#last = this.#db.one<{ value: number }>(`select value from meta where key = 'position'`)?.value ?? 0
    this.#saved = this.#last
  }
}

/** Gives a device something to hear of: a new position that its sync has not passed. Inside a transaction. */
export function signalDevice(core: Core, device: DeviceRef): Position {
  const position = core.positions.next()
  core.db.run(`update devices set signal_pos = ? where device_num = ?`, position, device)
  core.wakes.device(device)
  return position
}

/** Marks a user's device list as changed, for herself and for everyone who has asked for her keys. Inside a transaction. */
export function deviceListChanged(core: Core, user: UserRef): void {
  core.db.run(`update users set list_pos = ? where user_num = ?`, core.positions.next(), user)
  core.wakes.user(user)
  const observers = core.db.all<{ observer_num: UserRef }>(
    `select observer_num from tracked_users where target_num = ?`,
    user,
  )
  for (const { observer_num } of observers) core.wakes.user(observer_num)
}
