/** To-device messages: into inboxes once per transaction ID, out of them when the device's next token confirms them. */
import { unknownToken } from '../../matrix-error.ts'
import type { Delivery } from '../../messages/inbox.ts'
import type { OutgoingMessage, SendCommand } from '../../messages/port.ts'
import { decideSend, type KnownDevice, transactionsForgottenBefore } from '../../messages/send.ts'
import type { DeviceRef, Position, Session } from '../../session.ts'
import type { Core } from './core.ts'

/** Forgotten transactions that each send deletes. */
const SWEEP = 20

export function sendMessages(core: Core, command: SendCommand): Promise<void> {
  const changed = new Set<DeviceRef>()
  return core.queue.guarded(() => send(core, command, changed), {
    undone() {
      for (const device of changed) core.inboxes.forget(device)
    },
  })
}

function send(core: Core, command: SendCommand, changed: Set<DeviceRef>): void {
  const { messages, now } = command
  const decision = decideSend(
    {
      sentTs: lastSent(core, command),
      messages: messages.map((message) => ({ ...message, candidates: candidatesOf(core, message) })),
    },
    now,
  )
  if (decision.kind === 'refused') throw decision.error
  if (decision.kind === 'repeat') return
  rememberTransaction(core, command)
  for (const delivery of decision.deliveries) {
    changed.add(delivery.device)
    deliver(core, delivery)
  }
}

/**
 * When the session's device carried out this transaction. The session is checked by the same statement.
 *
 * @throws {MatrixError} 401 when the session has ended.
 */
function lastSent({ db }: Core, { session, transactionId }: SendCommand): number | undefined {
  const row = db.one<{ ts: number | null }>(
    `select ts from access_tokens join devices using (device_num)
       left join sent_transactions as sent on sent.device_num = devices.device_num and transaction_id = ?
     where token_hash = ? and devices.device_num = ? and removed_ts is null`,
    transactionId,
    session.tokenHash,
    session.deviceRef,
  )
  if (row === undefined) throw unknownToken()
  return row.ts ?? undefined
}

function rememberTransaction({ db }: Core, { session, transactionId, now }: SendCommand): void {
  db.run(
    `delete from sent_transactions where (device_num, transaction_id) in
       (select device_num, transaction_id from sent_transactions where ts < ? limit ${SWEEP})`,
    transactionsForgottenBefore(now),
  )
  db.run(
    `insert into sent_transactions (device_num, transaction_id, ts) values (?, ?, ?)
     on conflict do update set ts = excluded.ts`,
    session.deviceRef,
    transactionId,
    now,
  )
}

function candidatesOf(core: Core, { userId, deviceId }: OutgoingMessage): KnownDevice[] {
  if (deviceId !== undefined) {
    const device = core.keys.byName(userId, deviceId)
    return device === undefined ? [] : [{ deviceRef: device.deviceRef, deviceId }]
  }
  return core.db
    .all<{ device_num: DeviceRef; device_id: string }>(
      `select device_num, device_id from devices join users using (user_num)
       where user_id = ? and removed_ts is null`,
      userId,
    )
    .map((row) => ({ deviceRef: row.device_num, deviceId: row.device_id }))
}

function deliver(core: Core, { device, event, length }: Delivery): void {
  core.db.run(
    `insert into inbox (device_num, pos, event) values (?, ?, ?)`,
    device,
    core.positions.next(),
    event,
  )
  core.wakes.device(device)
  core.inboxes.added(device, length)
}

/** Deletes what a device has confirmed. No answer waits for it: until it is done the same messages are sent again. */
export function confirmMessages(core: Core, { deviceRef }: Session, position: Position): void {
  if (core.news.lastMessage(deviceRef) === 0) return
  core.queue
    .plain(() => {
      core.db.run(`delete from inbox where device_num = ? and pos <= ?`, deviceRef, position)
      core.inboxes.forget(deviceRef)
      core.news.forgetDevice(deviceRef)
    })
    .catch(() => {}) // the next sync confirms again
}
