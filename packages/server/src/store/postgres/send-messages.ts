/**
 * To-device messages: into inboxes once per transaction ID, out of them when the device's next token confirms them. Sends
 * that arrive while others are committed go in the next transaction together (batches.ts), in their order. One at a time:
 * they would wait for each other's lock of the stream anyway.
 *
 *     lock senders and recipients, in order -> check the sessions -> note the transactions, in order -> (stream) insert
 *
 * The locks are KEY SHARE: senders do not wait for each other, but no device is removed while a message is on its way to
 * it, and none comes to one that was.
 */
import { hash } from 'node:crypto'
import { tooLarge, unknownToken } from '../../matrix-error.ts'
import type { OutgoingMessage, SendCommand } from '../../messages/port.ts'
import type { DeviceRef, Position, Session, TokenHash } from '../../session.ts'
import { Batches, type Outcome, type Ran } from './batches.ts'
import { commit, type Core, type Write } from './core.ts'
import type { Delivery } from './changes.ts'
import type { Load } from './inboxes.ts'

/** What one request may write, `*` multiplied out: as much as it could carry itself, and a half more. */
const MAX_FAN_OUT_LENGTH = 16 * 1024 * 1024
/** So many devices would have more than that of the shortest messages. */
const MAX_RECIPIENTS = MAX_FAN_OUT_LENGTH / 32
/** How long a transaction ID is remembered. */
const REMEMBER_TRANSACTION_MS = 24 * 60 * 60 * 1000
/** Forgotten ones are swept a few at a time, by whoever sends next. */
const SWEEP = 20

/** Of one batch, in messages; a longer one counts for several, and one for all devices of a user as for some. */
const MAX_BATCH = 500
const LENGTH_OF_ONE = 4096
const DEVICES_OF_ALL = 10

export type Sends = Batches<SendCommand, void>

/** The sends of one process. Each rejects with 401 when its session has ended. */
export function sends(core: Core): Sends {
  return new Batches({ atOnce: 1, maxSize: MAX_BATCH, sizeOf, run: (commands) => send(core, commands) })
}

function sizeOf({ messages }: SendCommand): number {
  return messages.reduce(
    (size, { deviceId, event }) =>
      size + (deviceId === undefined ? DEVICES_OF_ALL : 1) * (1 + event.length / LENGTH_OF_ONE),
    1,
  )
}

async function send(core: Core, commands: readonly SendCommand[]): Promise<Ran<void>> {
  const { result: outcomes, acknowledged } = await commit(core, (tx) => sendTogether(core, tx, commands))
  return { outcomes, acknowledged }
}

/** What is too much for one request is so for a batch, which is then taken apart. */
async function sendTogether(
  core: Core,
  tx: Write,
  commands: readonly SendCommand[],
): Promise<Outcome<void>[]> {
  const devices = await lockDevices(tx, commands)
  const devicesOf = await devicesOfTokens(tx, commands)
  const holds = ({ session }: SendCommand): boolean => devicesOf.get(session.tokenHash) === session.deviceRef
  const first = await rememberTransactions(tx, commands.filter(holds))
  const deliveries = address(
    first.flatMap(({ messages }) => messages),
    devices,
  )
  if (deliveries.length > 0) await deliver(core, tx, deliveries)
  return commands.map((command) =>
    holds(command)
      ? { status: 'fulfilled', value: undefined }
      : { status: 'rejected', reason: unknownToken() },
  )
}

type Recipients = {
  /** By user ID and device ID. */
  readonly named: ReadonlyMap<string, DeviceRef>
  /** By user ID. */
  readonly all: ReadonlyMap<string, readonly { readonly device: DeviceRef; readonly deviceId: string }[]>
}

/** The devices that exist of those the messages are for. The senders' are locked with them, to keep the order. */
async function lockDevices(tx: Write, commands: readonly SendCommand[]): Promise<Recipients> {
  const messages = commands.flatMap((command) => command.messages)
  const named = messages.filter((message) => message.deviceId !== undefined)
  const wild = messages.filter((message) => message.deviceId === undefined)
  const rows = await tx.all<{ device_num: DeviceRef; user_id: string; device_id: string }>(
    `select device_num, user_id, device_id from devices join users using (user_num)
     where removed_ts is null and device_num in (
       select unnest($1::bigint[])
       union select device_num from unnest($2::text[], $3::text[]) as named (user_id, device_id)
         join users using (user_id) join devices using (user_num, device_id)
       union select device_num from unnest($4::text[]) as wild (user_id)
         join users using (user_id) join devices using (user_num) where removed_ts is null)
     order by device_num limit ${MAX_RECIPIENTS + 1}
     for key share of devices`,
    commands.map(({ session }) => session.deviceRef),
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

/** After the senders' devices were locked: which of the sessions still hold. */
async function devicesOfTokens(
  tx: Write,
  commands: readonly SendCommand[],
): Promise<ReadonlyMap<TokenHash, DeviceRef>> {
  const rows = await tx.all<{ token_hash: TokenHash; device_num: DeviceRef }>(
    `select token_hash, device_num from access_tokens where token_hash = any($1::text[])`,
    [...new Set(commands.map(({ session }) => session.tokenHash))],
  )
  return new Map(rows.map((row) => [row.token_hash, row.device_num]))
}

/**
 * Those that are to be carried out: of several with one transaction ID the first, and none that was before. In order,
 * because another process that notes the same ones is waited for.
 */
async function rememberTransactions(tx: Write, commands: readonly SendCommand[]): Promise<SendCommand[]> {
  const byId = new Map<string, SendCommand>()
  for (const command of commands) {
    const id = nameOfTransaction(command.session.deviceRef, hashOf(command))
    if (!byId.has(id)) byId.set(id, command)
  }
  const asked = [...byId.values()]
  if (asked.length === 0) return []
  const latest = asked.reduce((ts, { now }) => Math.max(ts, now), 0)
  const rows = await tx.all<{ device_num: DeviceRef; transaction_id: string }>(
    `with forgotten as (
       delete from sent_transactions where (device_num, transaction_id) in
         (select device_num, transaction_id from sent_transactions where ts < $4
          limit $5 for update skip locked))
     insert into sent_transactions (device_num, transaction_id, ts)
     select * from unnest($1::bigint[], $2::text[], $3::bigint[]) as asked (device_num, transaction_id, ts)
     order by device_num, transaction_id
     on conflict (device_num, transaction_id) do nothing returning device_num, transaction_id`,
    asked.map(({ session }) => session.deviceRef),
    asked.map(hashOf),
    asked.map(({ now }) => now),
    latest - REMEMBER_TRANSACTION_MS,
    SWEEP * asked.length,
  )
  const noted = new Set(rows.map((row) => nameOfTransaction(row.device_num, row.transaction_id)))
  return [...byId].filter(([id]) => noted.has(id)).map(([, command]) => command)
}

function nameOfTransaction(device: DeviceRef, transactionHash: string): string {
  return `${device} ${transactionHash}`
}

/** The ID's text may hold U+0000, which PostgreSQL's does not. */
function hashOf({ transactionId }: SendCommand): string {
  return hash('sha256', transactionId, 'base64url')
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
  tx.changes.deliver(deliveries)
  if (over.length === 0) return
  tx.changes.write(0, async (last) => {
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
