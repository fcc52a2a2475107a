/** The report of an eviction (messages/eviction.ts) from the names that a store reads. */
import type { DeviceId, UserId } from '@latchkey/protocol'
import type { EvictionPlan, WaitingMessage } from '../messages/eviction.ts'
import type { Evicted } from '../messages/port.ts'

export type EvictionRow = {
  readonly user_id: UserId
  readonly device_id: DeviceId
  /** Null for messages that a process of an earlier version stored. */
  readonly sender: UserId | null
}

/** All messages are of one sender. */
export function reportEviction(
  { user_id: userId, device_id: deviceId, sender }: EvictionRow,
  { measure }: EvictionPlan,
  messages: readonly WaitingMessage[],
): Evicted {
  return {
    recipient: { userId, deviceId },
    ...(sender !== null && { sender }),
    measure,
    messages: messages.length,
    length: messages.reduce((sum, { length }) => sum + length, 0),
  }
}
