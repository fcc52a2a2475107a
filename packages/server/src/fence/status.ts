/** The state of a database's fence, as `latchkey fence status` tells it. */
import type { DeviceId, UserId } from '@latchkey/protocol'
import type { Position } from '../session.ts'
import type { Judgement } from './judge.ts'

export type FenceStatus = {
  readonly epoch: string
  /** How often the fence has been raised. */
  readonly number: number
  /** Where the stream ends. */
  readonly position: Position
  /** The epochs that have ended, the newest first, at most 20. */
  readonly raised: readonly {
    readonly epoch: string
    /** Milliseconds since 1970. */
    readonly endedTs: number
    /** For people. */
    readonly reason: string
    /** Tokens of this epoch acknowledge nothing beyond it. */
    readonly endPosition: Position
  }[]
  /** The witnesses of this database in the directory, and what each says of it. */
  readonly witnesses: readonly {
    readonly file: string
    readonly writerId: string
    readonly judgement: Judgement
  }[]
}

/** `latchkey fence raise`. */
export type RaiseCommand = {
  /** For people, and kept. */
  readonly reason: string
  /** Purge the pools of this device alone, without raising the fence. */
  readonly device?: { readonly userId: UserId; readonly deviceId: DeviceId }
  /** Undefined: if the last write is long ago (judge.ts); of a single device, never. */
  readonly dropFallbackKeys?: boolean
  /** Milliseconds since 1970. */
  readonly now: number
}

/** What became of a witness in `latchkey fence adopt`: those that a running process has are left alone. */
export type AdoptedWitness = { readonly file: string; readonly adopted: boolean }
