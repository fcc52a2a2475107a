/**
 * To-device messages: into inboxes once per transaction ID, out of them when the device's next token confirms them.
 *
 *     lock sender and recipients, in order -> check the session -> note the transaction -> (stream) insert
 *
 * The locks are KEY SHARE: senders do not wait for each other, but no device is removed while a message is on its way to
 * it, and none comes to one that was.
 */
import { hash } from 'node:crypto'
import { tooLarge } from '../../matrix-error.ts'
import type { OutgoingMessage, SendCommand } from '../../messages/port.ts'
import type { DeviceRef, Position, Session } from '../../session.ts'
import { type Core, type Write, write } from './core.ts'
import type { Load } from './inboxes.ts'
import { requireToken } from './session-device.ts'

/** What one request may write, `*` multiplied out: as much as it could carry itself, and a half more. */
const MAX_FAN_OUT_LENGTH = 16 * 1024 * 1024
/** So many devices would have more than that of the shortest messages. */
const MAX_RECIPIENTS = MAX_FAN_OUT_LENGTH / 32
/** How long a transaction ID is remembered. */
const REMEMBER_TRANSACTION_MS = 24 * 60 * 60 * 1000
/** Forgotten ones are swept a few at a time, by whoever sends next. */
const SWEEP = 20

type Delivery = { readonly device: DeviceRef; readonly event: string }

export function sendMessages(core: Core, command: SendCommand): Promise<void> {
  return write(core, async (tx) => {
    const devices = await lockDevices(tx, command)
    await requireToken(tx, command.session)
    if (!(await rememberTransaction(tx, command))) return
    const deliveries = address(command.messages, devices)
    if (deliveries.length > 0) await deliver(core, tx, deliveries)
  })
}

type Recipients = {
  /** By user ID and device ID. */
  readonly named: ReadonlyMap<string, DeviceRef>
  /** By user ID. */
  readonly all: ReadonlyMap<string, readonly { readonly device: DeviceRef; readonly deviceId: string }[]>
}

/** The devices that exist of those the messages are for. The sender's is locked with them, to keep the order. */
async function lockDevices(tx: Write, { session, messages }: SendCommand): Promise<Recipients> {
  const named = messages.filter((message) => message.deviceId !== undefined)
  const wild = messages.filter((message) => message.deviceId === undefined)
  const rows = await tx.all<{ device_num: DeviceRef; user_id: string; device_id: string }>(
    `select device_num, user_id, device_id from devices join users using (user_num)
     where removed_ts is null and device_num in (
       select $1
       union select device_num from unnest($2::text[], $3::text[]) as named (user_id, device_id)
         join users using (user_id) join devices using (user_num, device_id)
       union select device_num from unnest($4::text[]) as wild (user_id)
         join users using (user_id) join devices using (user_num) where removed_ts is null)
     order by device_num limit ${MAX_RECIPIENTS + 1}
     for key share of devices`,
    session.deviceRef,
    named.map(({ userId }) => userId),
    named.map(({ deviceId }) => deviceId),
    wild.map(({ userId }) => userId),
  )
  if (rows.length > MAX_RECIPIENTS) throw tooMuch()
  return {
    named: new Map(rows.map((row) => [nameOf(row.user_id, row.device_id), row.device_num])),
    all: Map.groupBy(
      rows.map((row) => ({ userId: row.user_id, device: row.device_num, deviceId: row.device_id })),
      ({ userId }) => userId,
    ),
  }
}

function nameOf(userId: string, deviceId: string): string {
  return `${userId}\0${deviceId}`
}

/** False when this transaction was carried out before. */
async function rememberTransaction(
  tx: Write,
  { session, transactionId, now }: SendCommand,
): Promise<boolean> {
  const changes = await tx.run(
    `with forgotten as (
       delete from sent_transactions where (device_num, transaction_id) in
         (select device_num, transaction_id from sent_transactions where ts < $4
          limit ${SWEEP} for update skip locked))
     insert into sent_transactions (device_num, transaction_id, ts) values ($1, $2, $3)
     on conflict (device_num, transaction_id) do nothing`,
    session.deviceRef,
    // Its text may hold U+0000, which PostgreSQL's does not.
    hash('sha256', transactionId, 'base64url'),
    now,
    now - REMEMBER_TRANSACTION_MS,
  )
  return changes === 1
}

/** Unknown devices are passed over. */
function address(messages: readonly OutgoingMessage[], { named, all }: Recipients): Delivery[] {
  const deliveries: Delivery[] = []
  let length = 0
  for (const { userId, deviceId, exceptDeviceIds, event } of messages) {
    const one = deviceId === undefined ? undefined : named.get(nameOf(userId, deviceId))
    const everyone = deviceId === undefined ? (all.get(userId) ?? []) : []
    const devices = [
      ...(one === undefined ? [] : [one]),
      ...everyone.filter((known) => !exceptDeviceIds?.has(known.deviceId)).map(({ device }) => device),
    ]
    length += devices.length * event.length
    if (length > MAX_FAN_OUT_LENGTH) throw tooMuch()
    for (const device of devices) deliveries.push({ device, event })
  }
  return deliveries
}

function tooMuch(): Error {
  return tooLarge(
    `With all its recipients the request has more than ${MAX_FAN_OUT_LENGTH} characters of messages.`,
  )
}

async function deliver(core: Core, tx: Write, deliveries: readonly Delivery[]): Promise<void> {
  const loads = loadsOf(deliveries)
  const over = await core.inboxes.over(tx, loads)
  for (const device of loads.keys()) tx.changes.wakeDevice(device)
  tx.changes.write(deliveries.length, async (last, position) => {
    await last.run(
      `insert into inbox (device_num, pos, event, length)
       select * from unnest($1::bigint[], $2::bigint[], $3::text[], $4::int[])`,
      deliveries.map(({ device }) => device),
      deliveries.map(() => position()),
      deliveries.map(({ event }) => event),
      deliveries.map(({ event }) => event.length),
    )
    for (const device of over) await core.inboxes.shrink(last, device)
  })
}

function loadsOf(deliveries: readonly Delivery[]): ReadonlyMap<DeviceRef, Load> {
  const loads = new Map<DeviceRef, Load>()
  for (const { device, event } of deliveries) {
    const known = loads.get(device)
    loads.set(device, {
      messages: (known?.messages ?? 0) + 1,
      length: (known?.length ?? 0) + event.length,
    })
  }
  return loads
}

/** Drops what a device has confirmed. Nothing waits for it: until it is done the same messages come again at worst. */
export function confirmMessages(core: Core, { deviceRef }: Session, position: Position): void {
  core.db
    .run(`delete from inbox where device_num = $1 and pos <= $2`, deviceRef, position)
    .then(() => core.inboxes.forget(deviceRef))
    .catch(() => {}) // the next sync confirms again
}
