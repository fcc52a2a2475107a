/**
 * Storage for `/sync`. A reading sees every commit that was acknowledged before it was requested. Writes are durable
 * before their promises resolve.
 */
import type { UserId } from '@latchkey/protocol'
import type { PoolStatus } from '../pool/commands.ts'
import type { DeviceRef, Position, Session, UserRef } from '../session.ts'
import type { PageLimits } from './page.ts'
import type { StreamEnd, SyncToken } from './token.ts'

/** Everything newer than a position, and the pools, read at one instant. */
export type SyncReading = {
  /** Positions compare only within one epoch. */
  readonly epoch: string
  /** The start of the reading: the token's position; undefined for the beginning (token.ts). */
  readonly since: Position | undefined
  /** The token was of a former epoch: the answer leaves at once, with a token of the present one (token.ts). */
  readonly newEpoch: boolean
  /** The position up to which messages and account data are complete (page.ts). Never below `since`. */
  readonly position: Position
  /** The position up to which device lists are complete: the end of the stream. */
  readonly lists: Position
  /** JSON texts of to-device events, oldest first. */
  readonly toDevice: readonly string[]
  readonly changedUsers: readonly UserId[]
  readonly accountData: readonly { readonly type: string; readonly content: string }[]
  /** The device's own keys changed after `since` in a way that wakes it (pool/wake.ts). */
  readonly signalled: boolean
  readonly pools: PoolStatus
}

export type SyncQuery = {
  /** The authenticated token of the request; without one it reads from the beginning. */
  readonly token?: SyncToken
  /**
   * The first reading of a request: the device has just shown that it received the answer with this token. The messages
   * up to there are deleted, and the counts that the answer advertised are acknowledged (reading.ts).
   */
  readonly confirms: boolean
  /** From the beginning: list everyone whom the user tracks. */
  readonly everyoneFromBeginning: boolean
  readonly page: PageLimits
  /**
   * Whether the request waits if there is nothing new. A reading that will be answered advertises its counts: they are
   * acknowledged (pool/wake.ts) once a request presents a token with its position. The answer may never arrive;
   * until then the earlier acknowledged counts decide about wakes.
   */
  readonly mayWait: boolean
}

export type WakeListener = {
  readonly device: (ref: DeviceRef) => void
  /** All users of one commit: those whom a change of a device list concerns can be thousands. */
  readonly users: (refs: readonly UserRef[]) => void
  /** The fence was raised: the pools of all devices are purged. */
  readonly everyone: () => void
}

export interface SyncStore {
  /**
   * One reading. A token that proves a rollback of the database raises the fence first.
   *
   * @throws {MatrixError} 401 when the session has ended.
   */
  read(session: Session, query: SyncQuery): Promise<SyncReading>
  /** The current end of the stream, and the end of the token's epoch. */
  end(token?: SyncToken): Promise<StreamEnd>
  /** The secret that authenticates sync tokens; the same for the life of the database. */
  readonly tokenSecret: string
  /**
   * Reports every commit that may wake a waiting sync, after the commit, so that a reading requested then shows it.
   * Returns a function that ends the subscription.
   */
  subscribe(listener: WakeListener): () => void

  putFilter(session: Session, json: string): Promise<string>
  filter(user: UserRef, filterId: string): Promise<string | undefined>
  /** @throws {MatrixError} 400 or 413 when the user's account data would exceed its limits. */
  putAccountData(session: Session, type: string, content: string): Promise<void>
  accountData(user: UserRef, type: string): Promise<string | undefined>
}
