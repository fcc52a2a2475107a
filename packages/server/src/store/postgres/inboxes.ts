/**
 * Sizes of inboxes, to keep them within their bounds (messages/inbox.ts, eviction.ts). A device's inbox is counted
 * once; after that only newer messages are counted. Messages confirmed through another process make the count too high,
 * which costs one exact count at the limit.
 */
import { LRUCache } from 'lru-cache'
import {
  chooseEvicted,
  type EvictionPlan,
  planEviction,
  type SenderLoad,
  type WaitingMessage,
} from '../../messages/eviction.ts'
import {
  addLoads,
  EMPTY_INBOX,
  exceedsInbox,
  type InboxLimits,
  type InboxLoad,
} from '../../messages/inbox.ts'
import type { Evicted } from '../../messages/port.ts'
import type { DeviceRef, Position, UserRef } from '../../session.ts'
import { type EvictionRow, reportEviction } from '../eviction-row.ts'
import type { Transaction } from './database.ts'
import type { LastStep } from './locks.ts'

type Counted = InboxLoad & { readonly upTo: Position }

export class Inboxes {
  readonly #limits: InboxLimits
  readonly #counted = new LRUCache<DeviceRef, Counted>({ max: 50_000 })

  constructor(limits: InboxLimits) {
    this.#limits = limits
  }

  /** The devices whose inboxes exceed their bounds when these loads are added to what is committed. */
  async over(tx: Transaction, loads: ReadonlyMap<DeviceRef, InboxLoad>): Promise<DeviceRef[]> {
    const devices = [...loads.keys()]
    const known = new Map(devices.map((device) => [device, this.#counted.get(device)]))
    const rows = await tx.all<{ device_num: DeviceRef } & Counted>(
      `select device_num, messages, length, pos as "upTo"
       from stream cross join unnest($1::bigint[], $2::bigint[]) as receiver (device_num, since)
       cross join lateral (
         select count(*) as messages, coalesce(sum(length), 0)::bigint as length
         from inbox where inbox.device_num = receiver.device_num and inbox.pos > since) as newer`,
      devices,
      devices.map((device) => known.get(device)?.upTo ?? 0),
    )
    return rows
      .filter(({ device_num: device, messages, length, upTo }) => {
        const before = known.get(device)
        const load = { ...addLoads(before ?? EMPTY_INBOX, { messages, length }), upTo }
        // Forgotten meanwhile, because messages left, or counted by another request.
        if (this.#counted.get(device) === before) this.#counted.set(device, load)
        return exceedsInbox(addLoads(load, loads.get(device) ?? EMPTY_INBOX), this.#limits)
      })
      .map(({ device_num: device }) => device)
  }

  /**
   * Evicts messages from an inbox that exceeds its bounds. A message that its device confirms at this moment is
   * skipped: it leaves anyway, and nothing waits.
   */
  async shrink(last: LastStep, device: DeviceRef): Promise<readonly Evicted[]> {
    const evicted: Evicted[] = []
    // One round for each limit.
    for (let round = 0; round < 2; round++) {
      const plan = planEviction(await sendersIn(last, device), this.#limits)
      if (plan === undefined) break
      const messages = chooseEvicted(plan, await oldestOf(last, device, plan))
      await last.run(
        `delete from inbox where device_num = $1 and pos in
           (select pos from inbox where device_num = $1 and pos = any($2::bigint[]) order by pos
            for update skip locked)`,
        device,
        messages.map(({ pos }) => pos),
      )
      for (const [sender, ofSender] of Map.groupBy(messages, (message) => message.sender))
        evicted.push(await evictedOf(last, device, sender, plan, ofSender))
    }
    this.forget(device)
    return evicted
  }

  forget(device: DeviceRef): void {
    this.#counted.delete(device)
  }

  /** The database may have been replaced by an older copy (fence.ts). */
  forgetAll(): void {
    this.#counted.clear()
  }
}

function sendersIn(last: LastStep, device: DeviceRef): Promise<SenderLoad[]> {
  return last.all(
    `select sender_num as sender, count(*) as messages, sum(length)::bigint as length
     from inbox where device_num = $1 group by sender_num`,
    device,
  )
}

function oldestOf(
  last: LastStep,
  device: DeviceRef,
  { measure, candidates }: EvictionPlan,
): Promise<WaitingMessage[]> {
  return last.all(
    `select sender, pos, length from (
       select sender, pos, length, excess, sum(amount) over (partition by sender order by pos) - amount as before
       from unnest($2::bigint[], $3::bigint[]) as candidate (sender, excess)
         join inbox on device_num = $1 and sender_num = sender
         cross join lateral (select case when $4 = 'messages' then 1 else length end) as measured (amount)) as waiting
     where before < excess`,
    device,
    candidates.map(({ sender }) => sender),
    candidates.map(({ excess }) => excess),
    measure,
  )
}

async function evictedOf(
  last: LastStep,
  device: DeviceRef,
  sender: UserRef,
  plan: EvictionPlan,
  messages: readonly WaitingMessage[],
): Promise<Evicted> {
  const names = await last.one<EvictionRow>(
    `select user_id, device_id, (select user_id from users where user_num = $1) as sender
     from devices join users using (user_num) where device_num = $2`,
    sender,
    device,
  )
  if (names === undefined) throw new Error(`device ${device} has no row`)
  return reportEviction(names, plan, messages)
}
