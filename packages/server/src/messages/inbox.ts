/**
 * Bounds of one device's inbox, so that an abandoned device cannot fill the disk. Over a limit messages are evicted
 * (eviction.ts).
 */
import type { DeviceRef, UserRef } from '../session.ts'

/** A to-device message for one inbox. `event` is JSON text, `length` that of `messageLength`. */
export type Delivery<Ref extends DeviceRef = DeviceRef> = {
  readonly device: Ref
  readonly sender: UserRef
  readonly event: string
  readonly length: number
}

export type InboxLimits = {
  readonly inboxMessages: number
  /** In characters of JSON text. */
  readonly inboxLength: number
}

/** Size of an inbox, or of what is added to one. `length` in characters of JSON text. */
export type InboxLoad = { readonly messages: number; readonly length: number }

export const EMPTY_INBOX: InboxLoad = { messages: 0, length: 0 }

export function addLoads(a: InboxLoad, b: InboxLoad): InboxLoad {
  return { messages: a.messages + b.messages, length: a.length + b.length }
}

export function exceedsInbox({ messages, length }: InboxLoad, limits: InboxLimits): boolean {
  return messages > limits.inboxMessages || length > limits.inboxLength
}

/**
 * Length of a message in characters, where one outside the basic plane counts once: as SQL counts, so that both stores
 * drop the same messages.
 */
export function messageLength(event: string): number {
  if (!/[\ud800-\udbff]/.test(event)) return event.length
  let length = 0
  for (const _ of event) length++
  return length
}

/** The load that deliveries add to each inbox. */
export function loadsOf(deliveries: readonly Delivery[]): ReadonlyMap<DeviceRef, InboxLoad> {
  const loads = new Map<DeviceRef, InboxLoad>()
  for (const { device, length } of deliveries) {
    loads.set(device, addLoads(loads.get(device) ?? EMPTY_INBOX, { messages: 1, length }))
  }
  return loads
}
