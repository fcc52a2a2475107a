import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import { decideFilter, type FilterDecision, type FilterFacts, parseFilterId } from './filters.ts'

describe('an uploaded filter', () => {
  const rows: readonly (readonly [string, FilterFacts, FilterDecision])[] = [
    [
      'is the first under ID 0',
      { same: undefined, newest: undefined },
      { kind: 'add', filterId: 0, dropUpTo: undefined },
    ],
    ['has the next ID', { same: undefined, newest: 0 }, { kind: 'add', filterId: 1, dropUpTo: undefined }],
    ['with the text of a stored one has its ID', { same: 0, newest: 4 }, { kind: 'known', filterId: 0 }],
    [
      'at the limit drops none',
      { same: undefined, newest: 1 },
      { kind: 'add', filterId: 2, dropUpTo: undefined },
    ],
    [
      'above the limit drops the oldest',
      { same: undefined, newest: 2 },
      { kind: 'add', filterId: 3, dropUpTo: 0 },
    ],
    [
      'drops all that a lowered limit leaves over',
      { same: undefined, newest: 9 },
      { kind: 'add', filterId: 10, dropUpTo: 7 },
    ],
  ]
  for (const [name, facts, expected] of rows)
    test(name, () => assert.deepEqual(decideFilter(facts, { filtersPerUser: 3 }), expected))
})

test('a filter ID is a whole number without leading zeros, of at most 15 digits', () => {
  const rows: readonly (readonly [string, number | undefined])[] = [
    ['0', 0],
    ['17', 17],
    ['999999999999999', 999_999_999_999_999],
    ['1000000000000000', undefined],
    ['01', undefined],
    ['-1', undefined],
    ['1.0', undefined],
    ['', undefined],
    ['{}', undefined],
  ]
  for (const [text, expected] of rows) assert.equal(parseFilterId(text), expected, text)
})
