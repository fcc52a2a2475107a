/** Records of transactions: their form, their time, and how many a device may have. */
import assert from 'node:assert/strict'
import test from 'node:test'
import type { DeviceRef } from '../session.ts'
import { AddedTransactions, transactionRecord, transactionsForgottenBefore } from './transaction-memory.ts'

const DAY_MS = 24 * 60 * 60 * 1000

test('the sweep deletes only what is forgotten', () =>
  assert.equal(transactionsForgottenBefore(DAY_MS + 5), 5))

test('a record has the same small size for every event type and ID', () => {
  for (const text of ['a', 'x'.repeat(255), 'é'.repeat(127)]) {
    assert.equal(transactionRecord(text, text).length, 43)
    assert.equal(transactionRecord('m.test', text).length, 43)
  }
})

test('event type and ID do not run together', () => {
  const pairs = [
    ['a', 'b/c'],
    ['a/b', 'c'],
    ['ab', 'c'],
    ['a', 'bc'],
    ['c', 'a/b'],
  ] as const
  assert.equal(new Set(pairs.map(([type, id]) => transactionRecord(type, id))).size, pairs.length)
})

test('the number of records is checked once for each thousand of a device', () => {
  const added = new AddedTransactions()
  const [busy, other] = [1 as DeviceRef, 2 as DeviceRef]
  const due: number[] = []
  for (let n = 1; n <= 3_000; n++) {
    if (added.add(busy)) due.push(n)
    if (n % 10 === 0) assert.equal(added.add(other), false)
  }
  assert.deepEqual(due, [1_000, 2_000, 3_000])
})
