/** Compares the inbox of a store with the limits of the domain, message by message. */
import assert from 'node:assert/strict'
import { type InboxLimits, lastDropped, messageLength } from '../../src/messages/inbox.ts'
import type { Session } from '../../src/session.ts'
import type { Store } from '../../src/store.ts'

/** A limit by number at which one message is dropped, one at which several are, and a limit by length. */
export const INBOX_BOUNDS: readonly InboxLimits[] = [
  { inboxMessages: 20, inboxLength: 1_000_000 },
  { inboxMessages: 5, inboxLength: 1_000_000 },
  { inboxMessages: 1000, inboxLength: 600 },
]

type Kept = { readonly pos: number; readonly length: number; readonly event: string }

/** Sends messages of different lengths in turn, and compares the inbox with the domain's after each. */
export async function assertInboxFollowsDomain(
  stores: readonly Store[],
  session: Session,
  limits: InboxLimits,
  count: number,
): Promise<void> {
  let expected: Kept[] = []
  for (let pos = 1; pos <= count; pos++) {
    const [store, reader] = [stores[pos % stores.length], stores[(pos + 1) % stores.length]]
    assert.ok(store && reader)
    const event = JSON.stringify({ n: pos, text: '😀'.repeat((pos * 7) % 23) })
    await store.messages.send({
      session,
      transaction: `m.model ${pos}`,
      messages: [{ userId: session.userId, deviceId: session.deviceId, event }],
      now: pos,
    })
    const newestFirst = [{ pos, length: messageLength(event), event }, ...expected]
    const dropped = lastDropped(newestFirst, limits) ?? 0
    expected = newestFirst.filter((message) => message.pos > dropped)
    const { toDevice } = await reader.sync.read(session, {
      confirms: false,
      everyoneFromBeginning: false,
      page: { toDevicePerSync: count, syncPageBytes: 1e9 },
      mayWait: false,
    })
    assert.deepEqual(toDevice, expected.map((message) => message.event).reverse(), `after message ${pos}`)
  }
}
