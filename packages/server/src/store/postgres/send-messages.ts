/**
 * To-device messages: added to inboxes once per transaction ID, deleted when the device's next token confirms them.
 * Sends that arrive during a commit share the next transaction (batches.ts), in their order. One transaction runs at a
 * time, because two would wait for each other's lock of the stream.
 *
 *     lock senders and recipients, in order -> prove the sessions, read the transactions -> decide (messages/send.ts)
 *       -> remember the transactions, in order -> (stream) insert
 *
 * The locks are KEY SHARE: senders do not wait for each other, no device is removed during a delivery to it, and a
 * removed device receives nothing.
 */
import { unknownToken } from '../../matrix-error.ts'
import { type Delivery, loadsOf } from '../../messages/inbox.ts'
import type { Evicted, OutgoingMessage, SendCommand, Sent } from '../../messages/port.ts'
import {
  decideSend,
  fanOutTooLarge,
  type KnownDevice,
  MAX_FAN_OUT_LENGTH,
  MAX_RECIPIENTS,
  type SendDecision,
} from '../../messages/send.ts'
import {
  REMEMBER_TRANSACTION_MS,
  TRANSACTIONS_PER_DEVICE,
  transactionsForgottenBefore,
} from '../../messages/transaction-memory.ts'
import type { DeviceRef, Position, Session } from '../../session.ts'
import { Batches, type Outcome, type Ran } from './batches.ts'
import { commit, type Core, type Write } from './core.ts'
import type { RecipientRef } from './locks.ts'

/** Forgotten transactions that each send deletes. */
const SWEPT_PER_SEND = 20

/** Messages per batch. A long message counts as several, and one to all devices of a user as `DEVICES_OF_ALL`. */
const MAX_BATCH = 500
const LENGTH_OF_ONE = 4096
const DEVICES_OF_ALL = 10

/** The sends of one process. Each rejects with 401 when its session has ended. */
export function sendBatches(core: Core): Batches<SendCommand, Sent> {
  return new Batches({ atOnce: 1, maxSize: MAX_BATCH, sizeOf, run: (commands) => send(core, commands) })
}

function sizeOf({ messages }: SendCommand): number {
  return messages.reduce(
    (size, { deviceId, event }) =>
      size + (deviceId === undefined ? DEVICES_OF_ALL : 1) * (1 + event.length / LENGTH_OF_ONE),
    1,
  )
}

async function send(core: Core, commands: readonly SendCommand[]): Promise<Ran<Sent>> {
  const { result, acknowledged } = await commit(core, (tx) => sendTogether(core, tx, commands))
  return { outcomes: result.map(outcomeOfSend), acknowledged }
}

/** A command of a batch, and the decision about it. */
type Decided = { readonly command: SendCommand; readonly decision: SendDecision<RecipientRef> }

type Sending = {
  readonly decision: SendDecision<RecipientRef>
  /** Undefined: nothing was delivered. */
  readonly deliveries: readonly Delivery<RecipientRef>[] | undefined
  /** Filled in the last step of the transaction. */
  readonly evicted: Evicted[]
}

async function sendTogether(
  core: Core,
  tx: Write,
  commands: readonly SendCommand[],
): Promise<readonly Sending[]> {
  const devices = await lockRecipients(tx, commands)
  const decided = decideTogether(await readSenders(tx, commands, devices), devices)
  requireBatchFits(decided)
  const noted = await rememberTransactions(core, tx, decided)
  const sendings = decided.map(({ command, decision }): Sending => {
    const isDelivered = decision.kind === 'deliver' && noted.has(nameOfTransaction(command))
    return { decision, deliveries: isDelivered ? decision.deliveries : undefined, evicted: [] }
  })
  await deliver(core, tx, sendings)
  return sendings
}

function outcomeOfSend({ decision, deliveries, evicted }: Sending): Outcome<Sent> {
  return decision.kind === 'refused'
    ? { status: 'rejected', reason: decision.error }
    : { status: 'fulfilled', value: { delivered: deliveries !== undefined, evicted } }
}

type Recipients = {
  /** By user ID and device ID. */
  readonly named: ReadonlyMap<string, KnownDevice<RecipientRef>>
  /** By user ID. */
  readonly all: ReadonlyMap<string, readonly KnownDevice<RecipientRef>[]>
}

/** Locks the existing devices that the messages may be for, and the senders' devices with them, in order. */
async function lockRecipients(tx: Write, commands: readonly SendCommand[]): Promise<Recipients> {
  const messages = commands.flatMap((command) => command.messages)
  const named = messages.filter((message) => message.deviceId !== undefined)
  const toAll = messages.filter((message) => message.deviceId === undefined)
  const rows = await tx.all<{ device_num: RecipientRef; user_id: string; device_id: string }>(
    `select device_num, user_id, device_id from devices join users using (user_num)
     where removed_ts is null and device_num in (
       select unnest($1::bigint[])
       union select device_num from unnest($2::text[], $3::text[]) as named (user_id, device_id)
         join users using (user_id) join devices using (user_num, device_id)
       union select device_num from unnest($4::text[]) as everyone (user_id)
         join users using (user_id) join devices using (user_num) where removed_ts is null)
     order by device_num limit ${MAX_RECIPIENTS + 1}
     for key share of devices`,
    commands.map(({ session }) => session.deviceRef),
    named.map(({ userId }) => userId),
    named.map(({ deviceId }) => deviceId),
    toAll.map(({ userId }) => userId),
  )
  if (rows.length > MAX_RECIPIENTS) throw fanOutTooLarge()
  const devices = rows.map((row) => ({
    userId: row.user_id,
    deviceRef: row.device_num,
    deviceId: row.device_id,
  }))
  return {
    named: new Map(devices.map((device) => [nameOf(device.userId, device.deviceId), device])),
    all: Map.groupBy(devices, ({ userId }) => userId),
  }
}

function candidatesOf(
  { userId, deviceId }: OutgoingMessage,
  { named, all }: Recipients,
): readonly KnownDevice<RecipientRef>[] {
  if (deviceId === undefined) return all.get(userId) ?? []
  const device = named.get(nameOf(userId, deviceId))
  return device === undefined ? [] : [device]
}

function nameOf(userId: string, deviceId: string): string {
  return `${userId}\0${deviceId}`
}

type Sender = {
  readonly command: SendCommand
  /** False when the session has ended. */
  readonly holds: boolean
  /** When the session's device carried out this transaction. */
  readonly sentTs: number | undefined
}

/** `limit 1` keeps the planner from reading whole tables for a batch. */
async function readSenders(
  tx: Write,
  commands: readonly SendCommand[],
  _lock: Recipients,
): Promise<Sender[]> {
  const rows = await tx.all<{ place: number; ts: number | null }>(
    `select place, ts
     from unnest($1::int[], $2::text[], $3::bigint[], $4::text[])
         as sender (place, token_hash, device_num, transaction_id)
       cross join lateral (
         select 1 from access_tokens
         where token_hash = sender.token_hash and device_num = sender.device_num limit 1) as token
       left join lateral (
         select ts from sent_transactions
         where device_num = sender.device_num and transaction_id = sender.transaction_id limit 1) as sent on true`,
    commands.map((_, place) => place),
    commands.map(({ session }) => session.tokenHash),
    commands.map(({ session }) => session.deviceRef),
    commands.map(({ transaction }) => transaction),
  )
  const byPlace = new Map(rows.map((row) => [row.place, row]))
  return commands.map((command, place) => ({
    command,
    holds: byPlace.has(place),
    sentTs: byPlace.get(place)?.ts ?? undefined,
  }))
}

/** Decides in order: a transaction that an earlier command of the batch carries out counts as carried out. */
function decideTogether(senders: readonly Sender[], devices: Recipients): readonly Decided[] {
  const sent = new Map<string, number>()
  return senders.map(({ command, holds, sentTs }) => {
    const name = nameOfTransaction(command)
    const decision = holds
      ? decideSend(
          {
            sender: command.session.userRef,
            charge: command.charge,
            sentTs: sent.get(name) ?? sentTs,
            messages: command.messages.map((message) => ({
              ...message,
              candidates: candidatesOf(message, devices),
            })),
          },
          command.now,
        )
      : ({ kind: 'refused', error: unknownToken() } as const)
    if (decision.kind === 'deliver') sent.set(name, command.now)
    return { command, decision }
  })
}

/** A batch over the limit of one request is rejected before it writes; its items then run one by one (batches.ts). */
function requireBatchFits(decided: readonly Decided[]): void {
  let length = 0
  for (const { decision } of decided) {
    if (decision.kind !== 'deliver') continue
    for (const { event } of decision.deliveries) length += event.length
  }
  if (length > MAX_FAN_OUT_LENGTH) throw fanOutTooLarge()
}

/**
 * Remembers the transactions to carry out, and returns the new ones: another process may have carried out some since
 * they were read. In order, because this waits for another process that inserts the same ones.
 */
async function rememberTransactions(
  core: Core,
  tx: Write,
  decided: readonly Decided[],
): Promise<ReadonlySet<string>> {
  const carriedOut = decided.filter(({ decision }) => decision.kind === 'deliver')
  if (carriedOut.length === 0) return new Set()
  const times = carriedOut.map(({ command }) => command.now)
  const rows = await tx.all<{ device_num: DeviceRef; transaction_id: string }>(
    `with forgotten as (
       delete from sent_transactions where (device_num, transaction_id) in
         (select device_num, transaction_id from sent_transactions where ts < $5
          limit $6 for update skip locked))
     insert into sent_transactions as sent (device_num, transaction_id, ts)
     select * from unnest($1::bigint[], $2::text[], $3::bigint[]) as new (device_num, transaction_id, ts)
     order by device_num, transaction_id
     on conflict (device_num, transaction_id) do update set ts = excluded.ts
       where sent.ts < excluded.ts - $4::bigint
     returning device_num, transaction_id`,
    carriedOut.map(({ command }) => command.session.deviceRef),
    carriedOut.map(({ command }) => command.transaction),
    times,
    REMEMBER_TRANSACTION_MS,
    transactionsForgottenBefore(Math.min(...times)),
    SWEPT_PER_SEND * carriedOut.length,
  )
  for (const { device_num: device } of rows) {
    if (core.addedTransactions.add(device)) await forgetOldest(tx, device)
  }
  return new Set(rows.map((row) => transactionName(row.device_num, row.transaction_id)))
}

/** Rows that another process deletes or renews at this moment are skipped, so that no process waits. */
async function forgetOldest(tx: Write, device: DeviceRef): Promise<void> {
  await tx.run(
    `delete from sent_transactions where device_num = $1 and transaction_id in
       (select transaction_id from sent_transactions where device_num = $1 and ts <=
          (select ts from sent_transactions where device_num = $1 order by ts desc limit 1
           offset ${TRANSACTIONS_PER_DEVICE})
        for update skip locked)`,
    device,
  )
}

function nameOfTransaction({ session, transaction }: SendCommand): string {
  return transactionName(session.deviceRef, transaction)
}

function transactionName(device: DeviceRef, transaction: string): string {
  return `${device} ${transaction}`
}

/** Evictions are reported with the first request of the batch that delivered to the inbox. */
async function deliver(core: Core, tx: Write, sendings: readonly Sending[]): Promise<void> {
  const deliveries = sendings.flatMap((sending) => sending.deliveries ?? [])
  if (deliveries.length === 0) return
  const over = await core.inboxes.over(tx, loadsOf(deliveries))
  tx.changes.deliver(deliveries)
  if (over.length === 0) return
  tx.changes.write(0, async (last) => {
    for (const device of over) {
      const by = sendings.find((sending) => sending.deliveries?.some((one) => one.device === device))
      by?.evicted.push(...(await core.inboxes.shrink(last, device)))
    }
  })
}

/** Deletes the confirmed messages of a device. No answer waits for it: until then the same messages are sent again. */
export function confirmMessages(core: Core, { deviceRef }: Session, position: Position): void {
  core.db
    .run(`delete from inbox where device_num = $1 and pos <= $2`, deviceRef, position)
    .then(() => core.inboxes.forget(deviceRef))
    .catch(() => {}) // the next sync confirms again
}
