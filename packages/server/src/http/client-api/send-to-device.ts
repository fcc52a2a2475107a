/**
 * PUT /sendToDevice/{eventType}/{txnId} (client-server API, "Send-to-device messaging"). Messages for remote users are
 * dropped, because there is no federation; unknown devices are skipped, as the specification requires.
 */
import { type DeviceId, parseUserId, type UserId, utf8Length } from '@latchkey/protocol'
import { Type } from 'typebox'
import type { Context } from '../../context.ts'
import { inTurns } from '../../lib/turns.ts'
import { invalidParam, quoted, tooLarge } from '../../matrix-error.ts'
import type { Evicted, OutgoingMessage } from '../../messages/port.ts'
import { transactionRecord } from '../../messages/transaction-memory.ts'
import type { Origin } from '../../observe/security-log.ts'
import type { Session } from '../../session.ts'
import { endpoint, largeBody } from '../endpoint.ts'

const MAX_NAME_BYTES = 255
/** Messages encoded per turn of the event loop: about 2 ms. */
const MESSAGES_PER_TURN = 500

export const sendToDevice = endpoint({
  method: 'PUT',
  path: '/sendToDevice/:eventType/:txnId',
  sessionProvedByStore: true,
  bodyBytes: largeBody,
  body: Type.Object({
    messages: Type.Object(
      {},
      { additionalProperties: Type.Object({}, { additionalProperties: Type.Object({}) }) },
    ),
  }),
  async handle({ context, session, params, body, origin }) {
    const { eventType = '', txnId = '' } = params
    for (const [name, value] of [
      ['event type', eventType],
      ['transaction ID', txnId],
    ] as const) {
      if (value === '' || utf8Length(value) > MAX_NAME_BYTES || value.includes('\0')) {
        throw invalidParam(`The ${name} must have 1 to ${MAX_NAME_BYTES} bytes and no U+0000.`)
      }
    }
    const messages = await collect(context, session, eventType, body.messages)
    const now = context.now()
    const charge = context.sendBudgets?.charge(session.userRef, now)
    let delivered = false
    try {
      const transaction = transactionRecord(eventType, txnId)
      const sent = await context.store.messages.send({
        session,
        transaction,
        messages,
        ...(charge && { charge }),
        now,
      })
      delivered = sent.delivered
      reportEvicted(context, origin, sent.evicted)
    } finally {
      if (!delivered) charge?.refund()
    }
    return {}
  },
})

function reportEvicted({ securityLog }: Context, origin: Origin, evicted: readonly Evicted[]): void {
  for (const { recipient, sender, measure, messages, length } of evicted) {
    securityLog.note('messages_evicted', origin, {
      recipientUserId: recipient.userId,
      recipientDeviceId: recipient.deviceId,
      evictedUserId: sender ?? 'unknown',
      cause: measure === 'length' ? 'bytes' : 'messages',
      count: messages,
      bytes: length,
    })
  }
}

type Named = { readonly userId: UserId; readonly deviceId: string; readonly content: unknown }

/** The messages for users of this server; costs.ts limits how many a request may carry. */
async function collect(
  context: Context,
  session: Session,
  type: string,
  byUser: object,
): Promise<OutgoingMessage[]> {
  const begin = `{"sender":${JSON.stringify(session.userId)},"type":${JSON.stringify(type)},"content":`
  const names = new Map<UserId, ReadonlySet<string>>()
  const named = Object.entries(byUser as Record<string, object>).flatMap(([user, byDevice]): Named[] => {
    const parsed = parseUserId(user)
    if (parsed?.serverName !== context.serverName) return []
    const { userId } = parsed
    names.set(userId, new Set(Object.keys(byDevice)))
    return Object.entries(byDevice).map(([deviceId, content]) => ({ userId, deviceId, content }))
  })
  const messages: OutgoingMessage[] = []
  for await (const some of inTurns(named, MESSAGES_PER_TURN)) {
    for (const { userId, deviceId, content } of some) {
      const text = JSON.stringify(content)
      if (utf8Length(text) > context.config.sizes.toDeviceBytes) {
        throw tooLarge(
          `The message for ${quoted(userId)} ${quoted(deviceId)} has more than ${context.config.sizes.toDeviceBytes} bytes.`,
        )
      }
      const exceptDeviceIds = names.get(userId) ?? new Set()
      const to = deviceId === '*' ? { exceptDeviceIds } : { deviceId: deviceId as DeviceId }
      messages.push({ userId, ...to, event: `${begin}${text}}` })
    }
  }
  return messages
}
