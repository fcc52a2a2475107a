/** The state of a database's fence, as printed by `latchkey fence status`. */
import type { DeviceId, UserId } from '@latchkey/protocol'
import type { Position } from '../session.ts'
import type { Judgement } from './judge.ts'

/** Ended epochs in a status. */
export const MAX_LISTED_EPOCHS = 20

export type FenceStatus = {
  readonly epoch: string
  /** How often the fence has been raised. */
  readonly number: number
  /** Last position of the stream. */
  readonly position: Position
  /** Ended epochs, newest first, at most `MAX_LISTED_EPOCHS`. */
  readonly raised: readonly {
    readonly epoch: string
    /** Milliseconds since 1970. */
    readonly endedTs: number
    /** Human-readable. */
    readonly reason: string
    /** Sync tokens of this epoch acknowledge nothing after this position. */
    readonly endPosition: Position
  }[]
  /** Witnesses of this database in the directory, each compared with the database. */
  readonly witnesses: readonly {
    readonly file: string
    readonly writerId: string
    readonly judgement: Judgement
    /** Whether the file was copied or restored: a server does not start with it. */
    readonly isCopy: boolean
  }[]
}

/** `latchkey fence raise`. */
export type RaiseCommand = {
  /** Human-readable; stored. */
  readonly reason: string
  /** Purge only the pools of this device, without raising the fence. */
  readonly device?: { readonly userId: UserId; readonly deviceId: DeviceId }
  /** Undefined: only if the last write is old (judge.ts); never for a single device. */
  readonly dropFallbackKeys?: boolean
  /** Milliseconds since 1970. */
  readonly now: number
}

/** Result of `latchkey fence adopt` for one witness; witnesses in use by a running process are skipped. */
export type AdoptedWitness = { readonly file: string; readonly adopted: boolean }
