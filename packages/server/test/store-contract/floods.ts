/** Flooded inboxes: the messages of honest senders arrive, in order (issue 11, B1). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { DeviceId, UserId } from '@latchkey/protocol'
import { DEFAULT_SIZES } from '../../src/config/config.ts'
import { DEFAULT_POOL_POLICY } from '../../src/pool/policy.ts'
import type { Session } from '../../src/session.ts'
import type { Store } from '../../src/store.ts'
import type { StoreUnderTest } from './store-under-test.ts'
import { login } from './test-device.ts'

const NOW = 1_700_000_000_000
const HONEST_KEYS = 20
const FLOODERS = 50
/** 72 MB of flood in all, for an inbox of 64 MiB. */
const MESSAGES_EACH = 24
const FLOOD = JSON.stringify({
  sender: '@m:test.example',
  type: 'm.flood',
  content: { text: 'x'.repeat(60_000) },
})

async function messagesOf(store: Store, session: Session, from?: number): Promise<string[]> {
  const reading = await store.sync.read(session, {
    confirms: from !== undefined,
    everyoneFromBeginning: false,
    page: { toDevicePerSync: 100_000, syncPageBytes: 1e9 },
    mayWait: false,
  })
  return [...reading.toDevice]
}

export function testFloods(under: StoreUnderTest): void {
  test(`${FLOODERS} flooding accounts push no honest room key out of an inbox in a ${under.name} store`, async () => {
    const open = await under.open(DEFAULT_POOL_POLICY)
    const { store } = open
    try {
      const alice = await login(store, NOW)
      const bob = await login(store, NOW, '@bob:test.example' as UserId, 'BOB' as DeviceId)
      const send = (session: Session, n: number, event: string): ReturnType<Store['messages']['send']> =>
        store.messages.send({
          session,
          transaction: `m.flood ${n}`,
          messages: [{ userId: alice.userId, deviceId: alice.deviceId, event }],
          now: NOW,
        })
      const keys = Array.from({ length: HONEST_KEYS }, (_, n) =>
        JSON.stringify({
          sender: bob.userId,
          type: 'm.room.encrypted',
          content: { n, text: 'k'.repeat(1_000) },
        }),
      )
      // Half of the keys arrive before the flood, half of them in the midst of it.
      for (const [n, event] of keys.entries()) if (n < HONEST_KEYS / 2) await send(bob, n, event)
      const flooders: Session[] = []
      for (let n = 0; n < FLOODERS; n++)
        flooders.push(await login(store, NOW, `@mallory${n}:test.example` as UserId))
      const evicted = []
      for (let n = 0; n < MESSAGES_EACH; n++) {
        const sent = await Promise.all(flooders.map((session) => send(session, n, FLOOD)))
        evicted.push(...sent.flatMap((one) => one.evicted))
        const event = keys[HONEST_KEYS / 2 + n]
        if (event !== undefined) await send(bob, HONEST_KEYS + n, event)
      }
      assert.ok(evicted.length > 0)
      assert.ok(evicted.every(({ sender }) => sender?.startsWith('@mallory')))
      assert.ok(evicted.every(({ recipient }) => recipient.deviceId === alice.deviceId))
      const left = await messagesOf(store, alice)
      assert.deepEqual(
        left.filter((event) => event.includes('m.room.encrypted')),
        keys,
      )
      const length = left.reduce((sum, event) => sum + event.length, 0)
      assert.ok(length <= DEFAULT_SIZES.inboxLength)
      const count = evicted.reduce((sum, { messages }) => sum + messages, 0)
      assert.equal(left.length, HONEST_KEYS + FLOODERS * MESSAGES_EACH - count)
    } finally {
      await open.close()
    }
  })
}
