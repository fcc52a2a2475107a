import assert from 'node:assert/strict'
import { test } from 'node:test'
import { chooseKey } from './claim.ts'

const ROWS = [
  ['a one-time key, if one is available', { available: true, hasFallback: true }, true, 'one_time_key'],
  ['a one-time key, without a fallback key', { available: true, hasFallback: false }, true, 'one_time_key'],
  ['the fallback key over the budget', { available: true, hasFallback: true }, false, 'rate_limited'],
  [
    'a one-time key over the budget, where there is no fallback key',
    { available: true, hasFallback: false },
    false,
    'one_time_key',
  ],
  ['the fallback key of an empty pool', { available: false, hasFallback: true }, undefined, 'fallback'],
  [
    'nothing of an empty pool without a fallback key',
    { available: false, hasFallback: false },
    undefined,
    'none',
  ],
] as const

for (const [name, pool, budget, kind] of ROWS) {
  test(`a claim returns ${name}`, () => {
    let asked = 0
    const takesBudget = (): boolean => {
      asked++
      return budget ?? true
    }
    assert.equal(chooseKey(pool, takesBudget), kind)
    assert.equal(asked, pool.available ? 1 : 0, 'the budget is used when a one-time key is about to leave')
  })
}
