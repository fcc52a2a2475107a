/**
 * Sizes of inboxes, which keep them within their bounds (messages/inbox.ts, eviction.ts). Each is counted once and then
 * updated; after a rollback it is dropped and counted again.
 */
import { LRUCache } from 'lru-cache'
import {
  chooseEvicted,
  type EvictionPlan,
  loadAfter,
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
import type { DeviceRef, UserRef } from '../../session.ts'
import { type EvictionRow, reportEviction } from '../eviction-row.ts'
import type { Transaction } from './database.ts'

export class Inboxes {
  readonly #limits: InboxLimits
  readonly #loads = new LRUCache<DeviceRef, InboxLoad>({ max: 50_000 })

  constructor(limits: InboxLimits) {
    this.#limits = limits
  }

  /** Counts a message that was just inserted. Returns what it evicted from an inbox over its bound. */
  added(tx: Transaction, device: DeviceRef, length: number): readonly Evicted[] {
    const known = this.#loads.get(device)
    const load = known === undefined ? this.#count(tx, device) : addLoads(known, { messages: 1, length })
    this.#loads.set(device, load)
    return exceedsInbox(load, this.#limits) ? this.#shrink(tx, device) : []
  }

  forget(device: DeviceRef): void {
    this.#loads.delete(device)
  }

  forgetAll(): void {
    this.#loads.clear()
  }

  #shrink(tx: Transaction, device: DeviceRef): readonly Evicted[] {
    const evicted: Evicted[] = []
    // One round for each limit.
    for (let round = 0; round < 2; round++) {
      const senders = sendersIn(tx, device)
      const plan = planEviction(senders, this.#limits)
      if (plan === undefined) break
      const messages = chooseEvicted(plan, oldestOf(tx, device, plan))
      tx.run(
        `delete from inbox where device_num = ? and pos in (select value from json_each(?))`,
        device,
        JSON.stringify(messages.map(({ pos }) => pos)),
      )
      this.#loads.set(device, loadAfter(senders, messages))
      for (const [sender, ofSender] of Map.groupBy(messages, (message) => message.sender))
        evicted.push(evictedOf(tx, device, sender, plan, ofSender))
    }
    return evicted
  }

  #count(tx: Transaction, device: DeviceRef): InboxLoad {
    return (
      tx.one<InboxLoad>(
        `select count(*) as messages, coalesce(sum(length), 0) as length from inbox where device_num = ?`,
        device,
      ) ?? EMPTY_INBOX
    )
  }
}

function sendersIn(tx: Transaction, device: DeviceRef): SenderLoad[] {
  return tx.all(
    `select sender_num as sender, count(*) as messages, sum(length) as length
     from inbox where device_num = ? group by sender_num`,
    device,
  )
}

function oldestOf(
  tx: Transaction,
  device: DeviceRef,
  { measure, candidates }: EvictionPlan,
): WaitingMessage[] {
  return tx.all(
    `with candidate (sender, excess) as (select value ->> 'sender', value ->> 'excess' from json_each(?1)),
       waiting as (
         select sender_num as sender, pos, length, excess,
           sum(case when ?3 = 'messages' then 1 else length end) over (partition by sender_num order by pos)
             - case when ?3 = 'messages' then 1 else length end as before
         from candidate cross join inbox on device_num = ?2 and sender_num = sender)
     select sender, pos, length from waiting where before < excess`,
    JSON.stringify(candidates),
    device,
    measure,
  )
}

function evictedOf(
  tx: Transaction,
  device: DeviceRef,
  sender: UserRef,
  plan: EvictionPlan,
  messages: readonly WaitingMessage[],
): Evicted {
  const names = tx.one<EvictionRow>(
    `select users.user_id, device_id, (select user_id from users where user_num = ?) as sender
     from devices join users using (user_num) where device_num = ?`,
    sender,
    device,
  )
  if (names === undefined) throw new Error(`device ${device} has no row`)
  return reportEviction(names, plan, messages)
}
