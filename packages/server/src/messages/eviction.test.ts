/** Eviction from a full inbox, against a model that removes one message after the other. */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import fc from 'fast-check'
import type { UserRef } from '../session.ts'
import { evictOneByOne } from '../../test/support/inbox-model.ts'
import { chooseEvicted, planEviction, type SenderLoad, type WaitingMessage } from './eviction.ts'
import type { InboxLimits } from './inbox.ts'

/** Messages in the order of their positions: of a sender, with a length. */
type Row = readonly [sender: number, length: number]

function inbox(rows: readonly Row[]): WaitingMessage[] {
  return rows.map(([sender, length], place) => ({ sender: sender as UserRef, pos: place + 1, length }))
}

type Evicted = { readonly positions: number[]; readonly read: number; readonly candidates: number }

/** The positions that leave, with as much read as a store reads. */
function evict(messages: readonly WaitingMessage[], limits: InboxLimits): Evicted {
  let kept = messages
  const found = { positions: [] as number[], read: 0, candidates: 0 }
  for (let round = 0; round < 2; round++) {
    const senders = [...Map.groupBy(kept, ({ sender }) => sender)].map(
      ([sender, own]): SenderLoad => ({
        sender,
        messages: own.length,
        length: own.reduce((sum, { length }) => sum + length, 0),
      }),
    )
    const plan = planEviction(senders, limits)
    if (plan === undefined) break
    const oldest = plan.candidates.flatMap(({ sender, excess }) => {
      let before = 0
      return kept.filter((message) => {
        if (message.sender !== sender || before >= excess) return false
        before += plan.measure === 'messages' ? 1 : message.length
        return true
      })
    })
    const evicted = chooseEvicted(plan, oldest)
    found.positions.push(...evicted.map(({ pos }) => pos))
    found.read += oldest.length
    found.candidates += plan.candidates.length
    kept = kept.filter((message) => !evicted.includes(message))
  }
  return found
}

const plenty = 1_000_000

describe('an inbox over a limit evicts', () => {
  const many = (sender: number, count: number, length: number): Row[] =>
    Array.from({ length: count }, () => [sender, length] as const)
  const rows: readonly (readonly [string, Row[], Partial<InboxLimits>, number[]])[] = [
    ['nothing within the limits', [[1, 50]], { inboxLength: 50, inboxMessages: 1 }, []],
    ['nothing at exactly a limit that leaves room', many(1, 128, 1), { inboxMessages: 128 }, []],
    ['the oldest message of its only sender', many(1, 3, 10), { inboxLength: 20 }, [1]],
    [
      'the oldest of the sender with the most bytes, although others are older and more',
      [...many(1, 5, 1), ...many(2, 3, 10)],
      { inboxLength: 34 },
      [6],
    ],
    [
      'by number the oldest of the sender with the most messages, although others have more bytes',
      [[1, 500], ...many(2, 3, 1)],
      { inboxMessages: 3 },
      [2],
    ],
    [
      'of senders with equally much the oldest message',
      [...many(2, 2, 5), ...many(1, 2, 5)],
      { inboxLength: 19 },
      [1],
    ],
    [
      'from each of several in turn',
      [[3, 1], ...many(2, 3, 10), ...many(1, 3, 10)],
      { inboxLength: 41 },
      [2, 5],
    ],
    [
      'a message that is longer than the limit itself',
      [
        [1, 1],
        [2, 90],
      ],
      { inboxLength: 50 },
      [2],
    ],
    ['nothing at exactly the limit', many(1, 128, 1), { inboxMessages: 128, inboxLength: 128 }, []],
    ['a 64th more than it must', many(1, 129, 1), { inboxMessages: 128 }, [1, 2, 3]],
  ]
  for (const [name, messages, limits, expected] of rows) {
    test(name, () => {
      const all = { inboxLength: plenty, inboxMessages: plenty, ...limits }
      assert.deepEqual(evict(inbox(messages), all).positions, expected)
    })
  }
})

test('only senders above the level are candidates', () => {
  const load = (sender: number, length: number): SenderLoad => ({
    sender: sender as UserRef,
    messages: 1,
    length,
  })
  const plan = planEviction([load(1, 90), load(2, 5), load(3, 30)], { inboxMessages: 9, inboxLength: 60 })
  assert.deepEqual(plan?.candidates, [
    { sender: 1, excess: 63 },
    { sender: 3, excess: 3 },
  ])
})

test('evictions are those of one message after the other, and no sender below the level is read', () => {
  const row = fc.tuple(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 40 }))
  fc.assert(
    fc.property(
      fc.array(row, { maxLength: 80 }),
      fc.integer({ min: 1, max: 80 }),
      fc.integer({ min: 1, max: 900 }),
      (rows, inboxMessages, inboxLength) => {
        const messages = inbox(rows)
        const limits = { inboxMessages, inboxLength }
        const { positions, read, candidates } = evict(messages, limits)
        const left = messages.filter(({ pos }) => !positions.includes(pos))
        assert.deepEqual(left, evictOneByOne(messages, limits))
        // At most one more message of each candidate than the ones that leave.
        assert.ok(read <= positions.length + candidates, `read ${read} to evict ${positions.length}`)
      },
    ),
    { numRuns: 500 },
  )
})
