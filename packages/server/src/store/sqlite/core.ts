/**
 * The shared state of the SQLite store's operations: the connection, the commit queue, the fence, the pools in memory,
 * stream positions and wake-ups. Each operation is a file of this folder: a function that takes the core, and the token
 * of its transaction if it runs inside one.
 */
import type { OnFence } from '../../fence/events.ts'
import { AddedTransactions } from '../../messages/transaction-memory.ts'
import type { DepletionDefence } from '../../pool/depletion.ts'
import type { PoolPolicy } from '../../pool/policy.ts'
import type { DeviceRef, Position, UserRef } from '../../session.ts'
import { AdvertisedCounts } from '../advertised-counts.ts'
import type { RowLimits } from '../row-limits.ts'
import type { Witness } from '../witness.ts'
import { Claimers } from './claimers.ts'
import { CommitQueue } from './commit-queue.ts'
import type { Database, Reader, Transaction } from './database.ts'
import { Fence } from './fence.ts'
import { Inboxes } from './inboxes.ts'
import { KeyStates } from './key-states.ts'
import { LastSeen } from './last-seen.ts'
import { LatestPositions } from './latest-positions.ts'
import { Positions } from './positions.ts'
import { SessionCache } from './session-cache.ts'
import { Wakes } from './wakes.ts'

export type Core = {
  /** Reads. Writes need the token of a transaction. */
  readonly db: Reader
  readonly queue: CommitQueue
  readonly fence: Fence
  readonly keys: KeyStates
  readonly advertised: AdvertisedCounts
  readonly positions: Positions
  readonly wakes: Wakes
  readonly latestPositions: LatestPositions
  readonly policy: PoolPolicy
  /** Undefined: claims are not limited. */
  readonly depletion: DepletionDefence | undefined
  readonly inboxes: Inboxes
  readonly addedTransactions: AddedTransactions
  readonly claimers: Claimers
  readonly lastSeen: LastSeen
  readonly sessions: SessionCache
  readonly limits: RowLimits
  readonly now: () => number
}

export type CoreOptions = RowLimits & {
  readonly pools: PoolPolicy
  /** Undefined: claims are not limited. */
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
  const latestPositions = new LatestPositions(db)
  const wakes = new Wakes(latestPositions)
  const inboxes = new Inboxes(options)
  const claimers = new Claimers()
  const queue = new CommitQueue(db, {
    ready: () => fence.ready(),
    beforeCommit: (tx) => {
      keys.settleSome(tx)
      positions.save(tx)
      fence.count(tx)
    },
    acknowledge: () => fence.record(),
    afterCommit: () => {
      fence.emit()
      wakes.emit()
      db.checkpointIfLong()
    },
    onRollback: () => {
      positions.reload()
      fence.reload()
      wakes.discard()
      latestPositions.forgetAll()
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
    latestPositions,
    policy,
    depletion: options.depletion,
    inboxes,
    addedTransactions: new AddedTransactions(),
    claimers,
    lastSeen: new LastSeen(queue),
    sessions: new SessionCache(),
    limits: options,
    now,
  }
}

type Stream = Pick<Core, 'positions' | 'wakes'>

/** Signals a change of its own keys to a device, at a new position. */
export function signalDevice(core: Stream, tx: Transaction, device: DeviceRef): Position {
  const position = core.positions.next(tx)
  tx.run(`update devices set signal_pos = ? where device_num = ?`, position, device)
  core.wakes.device(tx, device)
  return position
}

/** Marks a user's device list as changed, for the user and for everyone who tracks the user. */
export function deviceListChanged(core: Stream, tx: Transaction, user: UserRef): void {
  const position = core.positions.next(tx)
  tx.run(`update users set list_pos = ? where user_num = ?`, position, user)
  core.wakes.user(tx, user, position)
  const observers = tx.all<{ observer_num: UserRef }>(
    `select observer_num from tracked_users where target_num = ?`,
    user,
  )
  for (const { observer_num } of observers) core.wakes.user(tx, observer_num, position)
}
