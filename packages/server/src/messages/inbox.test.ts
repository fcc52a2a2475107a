/** Bounds of an inbox: when it is exceeded, and which of the oldest messages are dropped. */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import type { DeviceRef } from '../session.ts'
import { exceedsInbox, lastDropped, loadsOf, messageLength } from './inbox.ts'

/** Messages of these lengths, newest first; the oldest is at position 1. */
function inbox(lengths: readonly number[]): { pos: number; length: number }[] {
  return lengths.map((length, place) => ({ pos: lengths.length - place, length }))
}

const same = (count: number, length = 1): number[] => Array.from({ length: count }, () => length)

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

describe('the newest dropped message', () => {
  const rows: readonly (readonly [string, number[], number, number, number | undefined])[] = [
    ['is none within the bounds', same(10), 10, 10, undefined],
    ['is none in an empty inbox', [], 10, 10, undefined],
    ['is a tenth and one above the oldest that fits not, by number', same(30), 29, 1000, 5],
    ['is one above it in a small inbox', same(6), 5, 1000, 2],
    ['is at most 101 above it in a large inbox', same(5001), 5000, 1e9, 102],
    ['is found by length as well', same(30, 10), 1000, 290, 5],
    ['counts from the newest: old messages over the bound all fall', same(60), 29, 1000, 35],
    ['is the oldest that fits not when there are too few newer ones', [500, 1, 1], 10, 100, 3],
    ['is the only message when that one is too long', [101], 10, 100, 1],
  ]
  for (const [name, lengths, inboxMessages, inboxLength, expected] of rows)
    test(name, () => assert.equal(lastDropped(inbox(lengths), { inboxMessages, inboxLength }), expected))
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
  const loads = loadsOf([
    { device: a, event: '', length: 4 },
    { device: b, event: '', length: 0 },
    { device: a, event: '', length: 2 },
  ])
  assert.deepEqual(
    [...loads],
    [
      [a, { messages: 2, length: 6 }],
      [b, { messages: 1, length: 0 }],
    ],
  )
})
