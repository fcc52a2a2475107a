/**
 * PUT /sendToDevice/{eventType}/{txnId} (client-server API, "Send-to-device messaging"). Messages for remote users are
 * dropped, because there is no federation; unknown devices are skipped, as the specification requires.
 */
import { type DeviceId, parseUserId, utf8Length } from '@latchkey/protocol'
import { Type } from 'typebox'
import type { Context } from '../../context.ts'
import { invalidParam, quoted, tooLarge } from '../../matrix-error.ts'
import type { Evicted, OutgoingMessage } from '../../messages/port.ts'
import { transactionRecord } from '../../messages/transaction-memory.ts'
import type { Origin } from '../../observe/security-log.ts'
import type { Session } from '../../session.ts'
import { endpoint, largeBody } from '../endpoint.ts'

const MAX_NAME_BYTES = 255
const MAX_MESSAGES = 10_000

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
    const messages = collect(context, session, eventType, body.messages)
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

function collect(context: Context, session: Session, type: string, byUser: object): OutgoingMessage[] {
  const messages: OutgoingMessage[] = []
  for (const [user, byDevice] of Object.entries(byUser)) {
    const parsed = parseUserId(user)
    if (parsed?.serverName !== context.serverName) continue
    const named = new Set(Object.keys(byDevice as object))
    for (const [device, content] of Object.entries(byDevice as object)) {
      if (messages.length === MAX_MESSAGES)
        throw invalidParam(`A request may carry at most ${MAX_MESSAGES} messages.`)
      const text = JSON.stringify(content)
      if (utf8Length(text) > context.config.sizes.toDeviceBytes) {
        throw tooLarge(
          `The message for ${quoted(user)} ${quoted(device)} has more than ${context.config.sizes.toDeviceBytes} bytes.`,
        )
      }
      const event = `{"sender":${JSON.stringify(session.userId)},"type":${JSON.stringify(type)},"content":${text}}`
      const to = device === '*' ? { exceptDeviceIds: named } : { deviceId: device as DeviceId }
      messages.push({ userId: parsed.userId, ...to, event })
    }
  }
  return messages
}
