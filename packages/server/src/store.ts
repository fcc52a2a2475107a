/** The one store behind all rooms of the domain: a single database, so that one request can be one transaction. */
import type { AccountStore } from './accounts/port.ts'
import type { DeviceStore } from './devices/port.ts'
import type { MessageStore } from './messages/port.ts'
import type { PoolStore } from './pool/port.ts'
import type { SyncStore } from './sync/port.ts'

/** Connections for requests, and the requests that wait for one. */
export type ConnectionCounts = { readonly idle: number; readonly busy: number; readonly waiting: number }

export interface Store {
  readonly accounts: AccountStore
  readonly devices: DeviceStore
  readonly messages: MessageStore
  readonly pools: PoolStore
  readonly sync: SyncStore
  /** The server name this store belongs to; fixed by the first call. Resolves with the one that holds. */
  claimServerName(name: string | undefined): Promise<string>
  /** Resolves when the database answers; rejects when it cannot be asked. */
  ready(): Promise<void>
  /** Its connections to a database elsewhere; without such, there is no such member. */
  readonly connections?: () => ConnectionCounts
  /** Commits what waits and lets go of the database. Idempotent. */
  close(): Promise<void>
}
