import assert from 'node:assert/strict'
import { test } from 'node:test'
import { chooseKey, type ClaimedPool, type KeyKind } from './claim.ts'

type Row = readonly [
  name: string,
  pool: Partial<ClaimedPool>,
  budget: 'within' | 'over' | 'over, with a key of the reserve',
  kind: KeyKind,
  asked: string,
]

const ROWS: readonly Row[] = [
  ['a one-time key', { hasFallback: true }, 'within', 'one_time_key', 'budget'],
  ['a one-time key, without a fallback key', {}, 'within', 'one_time_key', 'budget'],
  ['the last one-time key', { available: 1 }, 'within', 'one_time_key', 'budget'],
  ['the fallback key over the budget', { hasFallback: true }, 'over', 'rate_limited', 'budget'],
  [
    'a one-time key over the budget and above the reserve',
    { available: 21 },
    'over',
    'one_time_key',
    'budget',
  ],
  [
    'nothing over the budget within the reserve of a fifth',
    { available: 20 },
    'over',
    'withheld',
    'budget reserve',
  ],
  ['a one-time key above a reserve of 5', { available: 6, filled: 10 }, 'over', 'one_time_key', 'budget'],
  ['nothing within a reserve of 5', { available: 5, filled: 10 }, 'over', 'withheld', 'budget reserve'],
  [
    'nothing within a reserve that is rounded up',
    { available: 21, filled: 101 },
    'over',
    'withheld',
    'budget reserve',
  ],
  [
    'a key of the reserve, at its slow rate',
    { available: 1 },
    'over, with a key of the reserve',
    'one_time_key',
    'budget reserve',
  ],
  ['the fallback key of an empty pool', { available: 0, hasFallback: true }, 'within', 'fallback', ''],
  ['nothing of an empty pool without a fallback key', { available: 0 }, 'within', 'none', ''],
]

for (const [name, pool, budget, kind, expected] of ROWS) {
  test(`a claim returns ${name}`, () => {
    const asked: string[] = []
    const ask = (what: string, answer: boolean) => () => {
      asked.push(what)
      return answer
    }
    const found = chooseKey(
      { available: 50, filled: 100, hasFallback: false, ...pool },
      {
        takesOneTimeKey: ask('budget', budget === 'within'),
        takesOfReserve: ask('reserve', budget === 'over, with a key of the reserve'),
      },
    )
    assert.equal(found, kind)
    assert.equal(asked.join(' '), expected, 'a budget is used when a one-time key is about to leave')
  })
}
