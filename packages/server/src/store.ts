/** The store behind all domain modules: a single database, so that one request can be one transaction. */
import type { AdminStore } from './admin/port.ts'
import type { AccountStore, AuthSessionStore } from './accounts/port.ts'
import type { DeviceStore } from './devices/port.ts'
import type { MessageStore } from './messages/port.ts'
import type { PoolStore } from './pool/port.ts'
import type { SyncStore } from './sync/port.ts'

/** Connections for requests, and the number of requests waiting for one. */
export type ConnectionCounts = { readonly idle: number; readonly busy: number; readonly waiting: number }

export interface Store {
  readonly accounts: AccountStore
  readonly admin: AdminStore
  readonly authSessions: AuthSessionStore
  readonly devices: DeviceStore
  readonly messages: MessageStore
  readonly pools: PoolStore
  readonly sync: SyncStore
  /** Fixes the server name of this store at the first call. Resolves with the effective name. */
  claimServerName(name: string | undefined): Promise<string>
  /** Resolves when the database answers; rejects if it is unreachable. */
  ready(): Promise<void>
  /** Connections to an external database; absent for an embedded one. */
  readonly connections?: () => ConnectionCounts
  /** Commits pending writes and closes the database. Idempotent. */
  close(): Promise<void>
}
