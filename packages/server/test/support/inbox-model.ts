/**
 * Compares the inbox of a store with a model that evicts one message after the other, as the rule is worded
 * (messages/eviction.ts): the oldest of the sender that has the most, until the inbox fits.
 */
import assert from 'node:assert/strict'
import { type InboxLimits, messageLength } from '../../src/messages/inbox.ts'
import type { Session } from '../../src/session.ts'
import type { Store } from '../../src/store.ts'

/** A limit by number at which no room is made, one at which it is, and limits by length, alone and together. */
export const INBOX_BOUNDS: readonly InboxLimits[] = [
  { inboxMessages: 20, inboxLength: 1_000_000 },
  { inboxMessages: 70, inboxLength: 1_000_000 },
  { inboxMessages: 1000, inboxLength: 600 },
  { inboxMessages: 12, inboxLength: 700 },
]

export type Kept = { readonly pos: number; readonly sender: number; readonly length: number }

/** The messages that stay, oldest first. */
export function evictOneByOne<Message extends Kept>(
  inbox: readonly Message[],
  limits: InboxLimits,
): Message[] {
  let kept = [...inbox].sort((a, b) => a.pos - b.pos)
  const measures = [
    [limits.inboxLength, (message: Kept) => message.length],
    [limits.inboxMessages, () => 1],
  ] as const
  for (const [limit, amountOf] of measures) {
    if (sumOf(kept.map(amountOf)) <= limit) continue
    while (sumOf(kept.map(amountOf)) > limit - Math.floor(limit / 64)) {
      const bySender = Map.groupBy(kept, ({ sender }) => sender)
      const totals = new Map([...bySender].map(([sender, own]) => [sender, sumOf(own.map(amountOf))]))
      const most = Math.max(...totals.values())
      const victim = kept.find(({ sender }) => totals.get(sender) === most)
      kept = kept.filter((message) => message !== victim)
    }
  }
  return kept
}

/** Sends messages of several senders and lengths in turn, and compares the inbox with the model's after each. */
export async function assertInboxFollowsModel(
  stores: readonly Store[],
  recipient: Session,
  senders: readonly Session[],
  limits: InboxLimits,
  count: number,
): Promise<void> {
  let expected: (Kept & { readonly event: string })[] = []
  let evicted = 0
  for (let pos = 1; pos <= count; pos++) {
    const [store, reader] = [stores[pos % stores.length], stores[(pos + 1) % stores.length]]
    // The first sender sends more than the others.
    const sender = (pos * pos) % 97 < 48 ? 0 : pos % senders.length
    const session = senders[sender]
    assert.ok(store && reader && session)
    const event = JSON.stringify({ n: pos, text: '😀'.repeat((pos * 7) % 23) })
    const sent = await store.messages.send({
      session,
      transaction: `m.model ${pos}`,
      messages: [{ userId: recipient.userId, deviceId: recipient.deviceId, event }],
      now: pos,
    })
    const before = [...expected, { pos, sender, length: messageLength(event), event }]
    expected = evictOneByOne(before, limits)
    const { toDevice } = await reader.sync.read(recipient, {
      confirms: false,
      everyoneFromBeginning: false,
      page: { toDevicePerSync: count, syncPageBytes: 1e9 },
      mayWait: false,
    })
    assert.deepEqual(
      toDevice,
      expected.map((message) => message.event),
      `after message ${pos}`,
    )
    assert.equal(sumOf(sent.evicted.map(({ messages }) => messages)), before.length - expected.length)
    evicted += before.length - expected.length
  }
  assert.ok(evicted > 0)
}

function sumOf(numbers: readonly number[]): number {
  return numbers.reduce((sum, number) => sum + number, 0)
}
