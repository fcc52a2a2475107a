/** Pages of `/sync`. */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import { completeUpTo, type PageItem, upTo } from './page.ts'

const LIMITS = { toDevicePerSync: 3, syncPageBytes: 100 }
const END = 9

const items = (...pairs: readonly (readonly [pos: number, bytes: number])[]): PageItem[] =>
  pairs.map(([pos, bytes]) => ({ pos, bytes }))

describe('a page is complete', () => {
  const rows = [
    ['up to the end of the stream without items', items(), items(), END],
    ['up to the end of the stream if it is not full', items([3, 99]), items([4, 99]), END],
    ['up to its last message if it has all it may have', items([3, 1], [4, 1], [6, 1]), items(), 6],
    ['up to the message that reaches the limit of bytes', items([3, 50], [4, 50]), items(), 4],
    ['up to a message larger than a page', items([3, 200]), items(), 3],
    ['up to the account data that reaches the limit', items(), items([2, 40], [5, 60]), 5],
    ['up to the earlier end of two full kinds', items([3, 100]), items([5, 100]), 3],
    ['up to the account data that ends before the messages', items([5, 100]), items([3, 100]), 3],
  ] as const
  for (const [name, messages, accountData, expected] of rows)
    test(name, () => assert.equal(completeUpTo({ messages, accountData }, LIMITS, END), expected))

  test('and has no item beyond', () =>
    assert.deepEqual(upTo(items([2, 1], [5, 1], [6, 1]), 5), items([2, 1], [5, 1])))
})
