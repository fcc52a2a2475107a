/** Bounds of an inbox: when they are exceeded, and how messages are measured. */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import type { DeviceRef, UserRef } from '../session.ts'
import { exceedsInbox, loadsOf, messageLength } from './inbox.ts'

describe('an inbox exceeds its bounds', () => {
  const limits = { inboxMessages: 10, inboxLength: 100 }
  const rows = [
    ['not with exactly as many messages and characters as allowed', 10, 100, false],
    ['with one message more', 11, 100, true],
    ['with one character more', 10, 101, true],
  ] as const
  for (const [name, messages, length, expected] of rows)
    test(name, () => assert.equal(exceedsInbox({ messages, length }, limits), expected))
})

test('a message is as long as its characters, one outside the basic plane counted once', () => {
  const rows = [
    ['', 0],
    ['{}', 2],
    ['é\uFFFD', 2],
    ['a😀b😀', 4],
  ] as const
  for (const [event, expected] of rows) assert.equal(messageLength(event), expected, event)
})

test('deliveries add their messages and characters to each inbox', () => {
  const [a, b] = [1 as DeviceRef, 2 as DeviceRef]
  const sender = 3 as UserRef
  const loads = loadsOf([
    { device: a, sender, event: '', length: 4 },
    { device: b, sender, event: '', length: 0 },
    { device: a, sender, event: '', length: 2 },
  ])
  assert.deepEqual(
    [...loads],
    [
      [a, { messages: 2, length: 6 }],
      [b, { messages: 1, length: 0 }],
    ],
  )
})
