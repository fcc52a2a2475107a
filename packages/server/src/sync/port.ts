/** What `/sync` needs from storage. */
import type { UserId } from '@latchkey/protocol'
import type { PoolStatus } from '../pool/port.ts'
import type { DeviceRef, Position, Session, UserRef } from '../session.ts'

/** Everything newer than a position, and the pools, in one reading that no commit falls into. */
export type SyncReading = {
  /** The position up to which this reading tells everything. Never below the `since` it was made for. */
  readonly position: Position
  /** JSON texts of to-device events, oldest first, at most the limit. */
  readonly toDevice: readonly string[]
  readonly changedUsers: readonly UserId[]
  readonly accountData: readonly { readonly type: string; readonly content: string }[]
  /** Something about the device's own keys happened after `since` that it should hear of at once (pool/wake.ts). */
  readonly signalled: boolean
  readonly pools: PoolStatus
}

export interface SyncStore {
  /** `since` undefined: from the beginning. `everyoneChanged`: list everyone the user has asked about. */
  read(
    session: Session,
    since: Position | undefined,
    options: { readonly toDeviceLimit: number; readonly everyoneChanged: boolean },
  ): SyncReading
  /** Drops the messages that a device has confirmed by presenting a token: those up to `position`. */
  confirm(session: Session, position: Position): void
  /** The counts of the reading just made are the answer: wake-ups go by them from now on. */
  told(session: Session): void
  /** The highest position so far. */
  readonly position: Position
  readonly epoch: string
  /** The secret that authenticates sync tokens. */
  readonly tokenSecret: string
  /** Tells of every commit that a waiting sync may have to hear of. Returns what ends it. */
  subscribe(listener: {
    readonly device: (ref: DeviceRef) => void
    readonly user: (ref: UserRef) => void
  }): () => void

  putFilter(user: UserRef, json: string): Promise<string>
  filter(user: UserRef, filterId: string): string | undefined
  putAccountData(user: UserRef, type: string, content: string): Promise<void>
  accountData(user: UserRef, type: string): string | undefined
}
