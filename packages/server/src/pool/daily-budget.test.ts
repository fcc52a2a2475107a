import { errorOf } from '@latchkey/testing/pool-facts.ts'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { countStored } from './daily-budget.ts'

const DAY_MS = 24 * 60 * 60 * 1000
const START = 1_700_000_000_000

type Row = readonly [
  name: string,
  count: { readonly before: number; readonly stored: number; readonly budget: number; readonly age: number },
  after: { readonly start: number; readonly stored: number } | string,
]

const ROWS: readonly Row[] = [
  [
    'a stored key counts in its day',
    { before: 2, stored: 3, budget: 10, age: 5 },
    { start: START, stored: 5 },
  ],
  [
    'the whole budget may be used',
    { before: 2, stored: 8, budget: 10, age: 5 },
    { start: START, stored: 10 },
  ],
  ['a key over the budget is 429', { before: 2, stored: 9, budget: 10, age: 5 }, '429 M_LIMIT_EXCEEDED'],
  ['a day lasts 24 hours', { before: 10, stored: 1, budget: 10, age: DAY_MS - 1 }, '429 M_LIMIT_EXCEEDED'],
  [
    'after 24 hours a new day begins',
    { before: 10, stored: 1, budget: 10, age: DAY_MS },
    { start: START + DAY_MS, stored: 1 },
  ],
  [
    'a clock that went backwards begins a new day',
    { before: 10, stored: 1, budget: 10, age: -1 },
    { start: START - 1, stored: 1 },
  ],
  [
    'a request over the budget of a new day is 429',
    { before: 0, stored: 11, budget: 10, age: DAY_MS },
    '429 M_LIMIT_EXCEEDED',
  ],
  [
    'a request that stores nothing is never refused',
    { before: 10, stored: 0, budget: 10, age: 5 },
    { start: START, stored: 10 },
  ],
  [
    'a request that stores nothing begins no day',
    { before: 10, stored: 0, budget: 10, age: DAY_MS },
    { start: START, stored: 10 },
  ],
  [
    'a budget of 0 limits nothing and counts nothing',
    { before: 10, stored: 99_999, budget: 0, age: 5 },
    { start: START, stored: 10 },
  ],
]

for (const [name, { before, stored, budget, age }, after] of ROWS) {
  test(name, () => {
    const count = (): object => countStored({ start: START, stored: before }, stored, budget, START + age)
    if (typeof after !== 'string') assert.deepEqual(count(), after)
    else
      assert.throws(count, (error: unknown) => {
        assert.equal(errorOf(error), after)
        return true
      })
  })
}

test('a request over the budget may be repeated after 2 s, and the error has the limit', () => {
  assert.throws(() => countStored({ start: START, stored: 10 }, 1, 10, START), {
    message: /stored 10 one-time keys within 24 hours/,
    extra: { retry_after_ms: 2_000 },
  })
})
