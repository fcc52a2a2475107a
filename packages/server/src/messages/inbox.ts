/**
 * Bounds of one device's inbox, so that an abandoned device cannot fill the disk: over a limit the oldest messages are
 * dropped.
 */
import type { DeviceRef, Position } from '../session.ts'

/** A to-device message for one inbox. `event` is JSON text, `length` that of `messageLength`. */
export type Delivery<Ref extends DeviceRef = DeviceRef> = {
  readonly device: Ref
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

/** When a limit is exceeded, up to this many more messages are dropped, so that not every further one pays for it. */
export const MAX_EXTRA_DROPS = 100
/** Fraction of the inbox that is dropped in addition, up to `MAX_EXTRA_DROPS`: a tenth. */
export const EXTRA_DROPS_DIVISOR = 10

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

/**
 * The newest message to drop, with all that are older; undefined when the inbox is within its limits. The PostgreSQL
 * store computes the same in its statement (store/postgres/inboxes.ts); the contract suite compares it with this one.
 */
export function lastDropped(
  newestFirst: readonly { readonly pos: Position; readonly length: number }[],
  limits: InboxLimits,
): Position | undefined {
  let load = EMPTY_INBOX
  for (const [place, { length }] of newestFirst.entries()) {
    load = addLoads(load, { messages: 1, length })
    if (!exceedsInbox(load, limits)) continue
    const extra = 1 + Math.min(MAX_EXTRA_DROPS, Math.floor(load.messages / EXTRA_DROPS_DIVISOR))
    return (newestFirst[place - extra] ?? newestFirst[place])?.pos
  }
  return undefined
}
