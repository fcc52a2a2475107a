/** To-device messages: into inboxes once per transaction ID, out of them when the device's next token confirms them. */
import { tooLarge } from '../../matrix-error.ts'
import type { OutgoingMessage, SendCommand } from '../../messages/port.ts'
import type { DeviceRef, Position, Session } from '../../session.ts'
import type { Core } from './core.ts'
import { requireDevice } from './session-device.ts'

/** What one request may write, `*` multiplied out: as much as it could carry itself, and a half more. */
const MAX_FAN_OUT_LENGTH = 16 * 1024 * 1024
/** How long a transaction ID is remembered. */
const REMEMBER_TRANSACTION_MS = 24 * 60 * 60 * 1000
/** Forgotten ones are swept a few at a time, by whoever sends next. */
const SWEEP = 20

export function sendMessages(core: Core, command: SendCommand): Promise<void> {
  const touched = new Set<DeviceRef>()
  return core.queue.guarded(() => send(core, command, touched), {
    undone() {
      for (const device of touched) core.inboxes.forget(device)
    },
  })
}

function send(core: Core, command: SendCommand, touched: Set<DeviceRef>): void {
  requireDevice(core, command.session)
  if (!rememberTransaction(core, command)) return
  let bytes = 0
  for (const message of command.messages) {
    for (const device of recipients(core, message)) {
      bytes += message.event.length
      if (bytes > MAX_FAN_OUT_LENGTH) {
        throw tooLarge(
          `With all its recipients the request has more than ${MAX_FAN_OUT_LENGTH} characters of messages.`,
        )
      }
      touched.add(device)
      deliver(core, device, message.event)
    }
  }
}

/** False when this transaction was carried out before. */
function rememberTransaction(core: Core, { session, transactionId, now }: SendCommand): boolean {
  core.db.run(
    `delete from sent_transactions where (device_num, transaction_id) in
       (select device_num, transaction_id from sent_transactions where ts < ? limit ${SWEEP})`,
    now - REMEMBER_TRANSACTION_MS,
  )
  const changes = core.db.run(
    `insert into sent_transactions (device_num, transaction_id, ts) values (?, ?, ?) on conflict do nothing`,
    session.deviceRef,
    transactionId,
    now,
  )
  return changes === 1
}

function recipients(core: Core, { userId, deviceId, exceptDeviceIds }: OutgoingMessage): DeviceRef[] {
  if (deviceId !== undefined) {
    const device = core.keys.byName(userId, deviceId)
    return device === undefined ? [] : [device.deviceRef]
  }
  const rows = core.db.all<{ device_num: DeviceRef; device_id: string }>(
    `select device_num, device_id from devices join users using (user_num) where user_id = ? and removed_ts is null`,
    userId,
  )
  return rows.filter((row) => !exceptDeviceIds?.has(row.device_id)).map((row) => row.device_num)
}

function deliver(core: Core, device: DeviceRef, event: string): void {
  core.db.run(
    `insert into inbox (device_num, pos, event) values (?, ?, ?)`,
    device,
    core.positions.next(),
    event,
  )
  core.wakes.device(device)
  core.inboxes.added(device, event.length)
}

/** Drops what a device has confirmed. Nothing waits for it: until it is done the same messages come again at worst. */
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
