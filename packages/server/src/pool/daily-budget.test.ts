import { countsOf } from '@latchkey/testing/memory-device.ts'
import { errorOf } from '@latchkey/testing/pool-facts.ts'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BudgetError, countUsed, type DayLimits, storesTooMuch } from './daily-budget.ts'
import { RememberedRefusal } from './decision.ts'

const DAY_MS = 24 * 60 * 60 * 1000
const START = 1_700_000_000_000

const UNLIMITED: DayLimits = {
  keysPerDeviceAndDay: 0,
  keysPerUserAndDay: 0,
  keyBytesPerUserAndDay: 0,
  healsPerDeviceAndDay: 0,
}

/** Counts keys of a user whose day began at `START`. */
function count(before: number, added: number, limit: number, age: number): ReturnType<typeof countUsed> {
  const limits = { ...UNLIMITED, keysPerUserAndDay: limit }
  const counts = countsOf({ user_keys: before }, START)
  return countUsed(counts, { user_keys: added }, limits, START + age, storesTooMuch)
}

type Row = readonly [
  name: string,
  count: { readonly before: number; readonly added: number; readonly limit: number; readonly age: number },
  after: { readonly start: number; readonly used: number },
]

const ROWS: readonly Row[] = [
  ['what is used counts in its day', { before: 2, added: 3, limit: 10, age: 5 }, { start: START, used: 5 }],
  ['the whole budget may be used', { before: 2, added: 8, limit: 10, age: 5 }, { start: START, used: 10 }],
  [
    'after 24 hours a new day begins',
    { before: 10, added: 1, limit: 10, age: DAY_MS },
    { start: START + DAY_MS, used: 1 },
  ],
  [
    'where the clock was moved backwards, the day begins again with what it has counted',
    { before: 9, added: 1, limit: 10, age: -5 },
    { start: START - 5, used: 10 },
  ],
  [
    'a request that uses nothing is never refused',
    { before: 10, added: 0, limit: 9, age: 5 },
    { start: START, used: 10 },
  ],
  [
    'a request that uses nothing begins no day',
    { before: 10, added: 0, limit: 10, age: DAY_MS },
    { start: START, used: 10 },
  ],
  [
    'a budget of 0 limits nothing and counts nothing',
    { before: 10, added: 99_999, limit: 0, age: 5 },
    { start: START, used: 10 },
  ],
]

for (const [name, { before, added, limit, age }, after] of ROWS) {
  test(name, () => {
    assert.deepEqual(count(before, added, limit, age), { ...countsOf({}, START), user_keys: after })
  })
}

for (const [name, before, added, age] of [
  ['over the budget', 2, 9, 5],
  ['over the budget in the last millisecond of the day', 10, 1, DAY_MS - 1],
  ['over the budget of a new day', 0, 11, DAY_MS],
] as const) {
  test(`a request ${name} is 429 with the limit, and may be repeated after 2 s`, () => {
    assert.throws(
      () => count(before, added, 10, age),
      (error: unknown) => {
        assert.ok(error instanceof BudgetError)
        assert.equal(errorOf(error), '429 M_LIMIT_EXCEEDED')
        assert.match(error.message, /may store 10 keys within 24 hours; nothing of the request was stored/)
        assert.deepEqual([error.budget, error.extra], ['user_keys', { retry_after_ms: 2_000 }])
        return true
      },
    )
  })
}

test('a clock that was moved backwards neither frees a budget nor blocks it for more than a day', () => {
  const limits = { ...UNLIMITED, keysPerUserAndDay: 10 }
  const use = (counts: ReturnType<typeof countUsed>, now: number): ReturnType<typeof countUsed> =>
    countUsed(counts, { user_keys: 1 }, limits, now, storesTooMuch)
  const tenYearsAhead = START + 3_650 * DAY_MS
  const full = countsOf({ user_keys: 10 }, tenYearsAhead)
  let remembered = full
  assert.throws(
    () => use(full, START),
    (error: unknown) => {
      assert.ok(error instanceof RememberedRefusal)
      assert.equal(errorOf(error.refusal), '429 M_LIMIT_EXCEEDED')
      remembered = error.changes.counts ?? full
      return true
    },
  )
  assert.deepEqual(remembered.user_keys, { start: START, used: 10 })
  assert.throws(() => use(remembered, START + DAY_MS - 1), BudgetError)
  assert.deepEqual(use(remembered, START + DAY_MS).user_keys, { start: START + DAY_MS, used: 1 })
})

test('one budget that is used up refuses all of a request', () => {
  const limits = { ...UNLIMITED, keysPerDeviceAndDay: 10, keyBytesPerUserAndDay: 10 }
  const counts = countsOf({ user_bytes: 9 }, START)
  assert.throws(
    () => countUsed(counts, { device_keys: 1, user_bytes: 2 }, limits, START, storesTooMuch),
    /may store 10 bytes/,
  )
})
