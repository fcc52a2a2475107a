/**
 * Delivery of one request of to-device messages (client-server API, "Send-to-device messaging"): its recipients, the
 * transaction memory, the fan-out limit and the sender's budget. A store loads the facts, asks, and saves the
 * deliveries.
 */
import { type MatrixError, tooLarge } from '../matrix-error.ts'
import type { DeviceRef, UserRef } from '../session.ts'
import { type Delivery, EMPTY_INBOX, addLoads, messageLength } from './inbox.ts'
import type { OutgoingMessage } from './port.ts'
import { type SendCharge, sendsTooFast } from './send-budget.ts'
import { isRemembered } from './transaction-memory.ts'

/**
 * Characters that one request may write in all, `*` expanded: what a request body can carry, and half as much again.
 */
export const MAX_FAN_OUT_LENGTH = 16 * 1024 * 1024
/** Shorter than any event: `{"sender":"@a:b","type":"c","content":{}}` has 41 characters. */
const MIN_EVENT_LENGTH = 32
/** More recipients than this exceed `MAX_FAN_OUT_LENGTH` with any messages, so a store need not load more. */
export const MAX_RECIPIENTS = MAX_FAN_OUT_LENGTH / MIN_EVENT_LENGTH
/** `Ref`: a store may require that recipients are locked. */
export type KnownDevice<Ref extends DeviceRef = DeviceRef> = {
  readonly deviceRef: Ref
  readonly deviceId: string
}

/** An outgoing message, and the existing devices that it may be for: of its user all, or only the one it names. */
export type AddressedMessage<Ref extends DeviceRef = DeviceRef> = OutgoingMessage & {
  readonly candidates: readonly KnownDevice<Ref>[]
}

export type SendFacts<Ref extends DeviceRef = DeviceRef> = {
  readonly sender: UserRef
  /** Undefined: the sender is not limited. */
  readonly charge: SendCharge | undefined
  /** The last time this device carried out a transaction with this ID. */
  readonly sentTs: number | undefined
  readonly messages: readonly AddressedMessage<Ref>[]
}

export type SendDecision<Ref extends DeviceRef = DeviceRef> =
  /** A repeat, or no message has a recipient: nothing changes, and the transaction is not remembered. */
  | { readonly kind: 'nothing' }
  | { readonly kind: 'refused'; readonly error: MatrixError }
  | { readonly kind: 'deliver'; readonly deliveries: readonly Delivery<Ref>[] }

/** A repeat changes nothing, even if it would be refused now. Only a transaction with deliveries is remembered. */
export function decideSend<Ref extends DeviceRef>(
  { sender, charge, sentTs, messages }: SendFacts<Ref>,
  now: number,
): SendDecision<Ref> {
  if (isRemembered(sentTs, now)) return { kind: 'nothing' }
  let length = 0
  const deliveries: Delivery<Ref>[] = []
  for (const message of messages) {
    const { event } = message
    const inboxLength = messageLength(event)
    for (const device of recipientsOf(message)) {
      length += event.length
      if (length > MAX_FAN_OUT_LENGTH) return { kind: 'refused', error: fanOutTooLarge() }
      deliveries.push({ device, sender, event, length: inboxLength })
    }
  }
  if (deliveries.length === 0) return { kind: 'nothing' }
  const load = deliveries.reduce(
    (sum, one) => addLoads(sum, { messages: 1, length: one.length }),
    EMPTY_INBOX,
  )
  const waitMs = charge?.take(load) ?? 0
  return waitMs > 0 ? { kind: 'refused', error: sendsTooFast(load, waitMs) } : { kind: 'deliver', deliveries }
}

export function fanOutTooLarge(): MatrixError {
  return tooLarge(
    `With all its recipients the request has more than ${MAX_FAN_OUT_LENGTH} characters of messages.`,
  )
}

/**
 * The named device, or with `*` all of the user's devices but those with a message of their own. Unknown ones: none.
 */
function recipientsOf<Ref extends DeviceRef>({
  deviceId,
  exceptDeviceIds,
  candidates,
}: AddressedMessage<Ref>): Ref[] {
  return candidates
    .filter((known) =>
      deviceId === undefined ? !exceptDeviceIds?.has(known.deviceId) : known.deviceId === deviceId,
    )
    .map(({ deviceRef }) => deviceRef)
}
