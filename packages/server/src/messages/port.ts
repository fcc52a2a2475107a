/** Storage of to-device messages. One request is one transaction, durable before its promise resolves. */
import type { DeviceId, UserId } from '@latchkey/protocol'
import type { Session } from '../session.ts'
import type { Measure } from './eviction.ts'
import type { SendCharge } from './send-budget.ts'

export type OutgoingMessage = {
  readonly userId: UserId
  /** Undefined for every device of the user (`*`). */
  readonly deviceId?: DeviceId
  /** With `*`: devices that get a message of their own in the same request. */
  readonly exceptDeviceIds?: ReadonlySet<string>
  /** The whole event as the recipient's sync will carry it: JSON text of `{sender, type, content}`. */
  readonly event: string
}

export type SendCommand = {
  readonly session: Session
  /** From `transactionRecord`. A repeat from the same device changes nothing (transaction-memory.ts). */
  readonly transaction: string
  readonly messages: readonly OutgoingMessage[]
  /** Undefined: the sender is not limited. */
  readonly charge?: SendCharge
  readonly now: number
}

/** Messages of one sender that were evicted from a full inbox (eviction.ts). */
export type Evicted = {
  readonly recipient: { readonly userId: UserId; readonly deviceId: DeviceId }
  /** Undefined for messages that a process of an earlier version stored. */
  readonly sender?: UserId
  /** The limit that the inbox exceeded. */
  readonly measure: Measure
  readonly messages: number
  /** In characters. */
  readonly length: number
}

export type Sent = {
  /** False for a repeat, and when no message had a recipient. */
  readonly delivered: boolean
  readonly evicted: readonly Evicted[]
}

export interface MessageStore {
  /**
   * Puts messages into inboxes, once per transaction. Unknown devices are ignored, as the specification requires.
   *
   * @throws {MatrixError} 401 when the session has ended, 413 over the fan-out limit, 429 over the sender's budget.
   */
  send(command: SendCommand): Promise<Sent>
}
