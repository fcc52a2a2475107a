/** Storage of to-device messages. One request is one transaction, durable before its promise resolves. */
import type { DeviceId, UserId } from '@latchkey/protocol'
import type { Session } from '../session.ts'

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
  readonly now: number
}

export interface MessageStore {
  /**
   * Puts messages into inboxes, once per transaction. Unknown devices are ignored, as the specification requires.
   */
  send(command: SendCommand): Promise<void>
}
