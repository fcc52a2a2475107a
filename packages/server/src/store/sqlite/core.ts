/**
 * What the operations of the SQLite store share: the connection, the commit queue, the fence, the pools in memory, stream
 * positions and wake-ups. Each operation is a file of this folder, a function that takes the core first.
 */
import type { OnFence } from '../../fence/events.ts'
import type { DepletionDefence } from '../../pool/depletion.ts'
import type { PoolPolicy } from '../../pool/policy.ts'
import type { DeviceRef, Position, UserRef } from '../../session.ts'
import { AdvertisedCounts } from '../advertised-counts.ts'
import type { RowLimits } from '../row-limits.ts'
import type { Witness } from '../witness.ts'
import { Claimers } from './claimers.ts'
import { CommitQueue } from './commit-queue.ts'
import type { Database } from './database.ts'
import { Fence } from './fence.ts'
import { Inboxes } from './inboxes.ts'
import { KeyStates } from './key-states.ts'
import { LastSeen } from './last-seen.ts'
import { News } from './news.ts'
import { Positions } from './positions.ts'
import { SessionCache } from './session-cache.ts'
import { Wakes } from './wakes.ts'

export type Core = {
  readonly db: Database
  readonly queue: CommitQueue
  readonly fence: Fence
  readonly keys: KeyStates
  readonly advertised: AdvertisedCounts
  readonly positions: Positions
  readonly wakes: Wakes
  readonly news: News
  readonly policy: PoolPolicy
  /** Undefined: claims are not limited. */
  readonly depletion: DepletionDefence | undefined
  readonly inboxes: Inboxes
  readonly claimers: Claimers
  readonly lastSeen: LastSeen
  readonly sessions: SessionCache
  readonly limits: RowLimits
  readonly now: () => number
}

export type CoreOptions = RowLimits & {
  readonly pools: PoolPolicy
  /** Without it claims are not limited. */
  readonly depletion?: DepletionDefence
  /** Milliseconds since 1970. */
  readonly now: () => number
  readonly onFence: OnFence
}

/** Without a witness writes are not counted. */
export function createCore(db: Database, options: CoreOptions, witness?: Witness): Core {
  const { pools: policy, now, onFence } = options
  const positions = new Positions(db)
  const fence = new Fence(db, positions, { witness, now, onFence })
  const keys = new KeyStates(db, fence, policy.claimOrder)
  const news = new News(db)
  const wakes = new Wakes(news)
  const inboxes = new Inboxes(db, options)
  const claimers = new Claimers(db)
  const queue = new CommitQueue(db, {
    ready: () => fence.ready(),
    beforeCommit: () => {
      keys.settleSome()
      positions.save()
      fence.count()
    },
    acknowledge: () => fence.record(),
    afterCommit: () => {
      fence.emit()
      wakes.emit()
    },
    onRollback: () => {
      positions.reload()
      fence.reload()
      wakes.discard()
      news.forgetAll()
      inboxes.forgetAll()
      claimers.forgetAll()
      keys.reload()
    },
  })
  keys.reload()
  return {
    db,
    queue,
    fence,
    keys,
    advertised: new AdvertisedCounts(),
    positions,
    wakes,
    news,
    policy,
    depletion: options.depletion,
    inboxes,
    claimers,
    lastSeen: new LastSeen(db, queue),
    sessions: new SessionCache(),
    limits: options,
    now,
  }
}

/** Gives a device something to hear of: a new position that its sync has not passed. Inside a transaction. */
export function signalDevice(core: Pick<Core, 'db' | 'positions' | 'wakes'>, device: DeviceRef): Position {
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
