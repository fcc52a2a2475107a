/** To-device messages: delivered once per transaction ID, deleted when the device's next token confirms them. */
import type { Delivery } from '../../messages/inbox.ts'
import type { Evicted, OutgoingMessage, SendCommand, Sent } from '../../messages/port.ts'
import { decideSend, type KnownDevice } from '../../messages/send.ts'
import { TRANSACTIONS_PER_DEVICE, transactionsForgottenBefore } from '../../messages/transaction-memory.ts'
import type { DeviceRef, Position, Session } from '../../session.ts'
import type { Core } from './core.ts'
import type { Transaction } from './database.ts'
import { type ProvedSession, proveSender } from './session-device.ts'

/** Expired transactions that each send deletes. */
const SWEEP = 20

export function sendMessages(core: Core, command: SendCommand): Promise<Sent> {
  const changed = new Set<DeviceRef>()
  return core.queue.guarded((tx) => send(core, tx, command, changed), {
    undone() {
      for (const device of changed) core.inboxes.forget(device)
    },
  })
}

function send(core: Core, tx: Transaction, command: SendCommand, changed: Set<DeviceRef>): Sent {
  const { messages, transaction, charge, now } = command
  const { session, sentTs } = proveSender(tx, command.session, transaction)
  const decision = decideSend(
    {
      sender: session.userRef,
      charge,
      sentTs,
      messages: messages.map((message) => ({ ...message, candidates: candidatesOf(core, message) })),
    },
    now,
  )
  if (decision.kind === 'refused') throw decision.error
  if (decision.kind === 'nothing') return { delivered: false, evicted: [] }
  rememberTransaction(core, tx, session, transaction, now)
  const evicted = decision.deliveries.flatMap((delivery) => {
    changed.add(delivery.device)
    return deliver(core, tx, delivery)
  })
  return { delivered: true, evicted }
}

function rememberTransaction(
  core: Core,
  tx: Transaction,
  { deviceRef }: ProvedSession,
  transaction: string,
  now: number,
): void {
  tx.run(
    `delete from sent_transactions where (device_num, transaction_id) in
       (select device_num, transaction_id from sent_transactions where ts < ? limit ${SWEEP})`,
    transactionsForgottenBefore(now),
  )
  tx.run(
    `insert into sent_transactions (device_num, transaction_id, ts) values (?, ?, ?)
     on conflict do update set ts = excluded.ts`,
    deviceRef,
    transaction,
    now,
  )
  if (core.addedTransactions.add(deviceRef)) {
    tx.run(
      `delete from sent_transactions where device_num = ?1 and ts <=
         (select ts from sent_transactions where device_num = ?1 order by ts desc limit 1 offset ${TRANSACTIONS_PER_DEVICE})`,
      deviceRef,
    )
  }
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

function deliver(
  core: Core,
  tx: Transaction,
  { device, sender, event, length }: Delivery,
): readonly Evicted[] {
  tx.run(
    `insert into inbox (device_num, pos, event, sender_num, length) values (?, ?, ?, ?, ?)`,
    device,
    core.positions.next(tx),
    event,
    sender,
    length,
  )
  core.wakes.device(tx, device)
  return core.inboxes.added(tx, device, length)
}

/** Deletes the messages that a device has confirmed. No answer waits for it: until then they are sent again. */
export function confirmMessages(core: Core, { deviceRef }: Session, position: Position): void {
  if (core.latestPositions.lastMessage(deviceRef) === 0) return
  core.queue
    .plain((tx) => {
      tx.run(`delete from inbox where device_num = ? and pos <= ?`, deviceRef, position)
      core.inboxes.forget(deviceRef)
      core.latestPositions.forgetDevice(deviceRef)
    })
    .catch(() => {}) // The next sync confirms again.
}
