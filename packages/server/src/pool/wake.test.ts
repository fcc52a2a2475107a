import assert from 'node:assert/strict'
import { test } from 'node:test'
import { acknowledgedAfterIssue, acknowledgedByToken, reachedLowWater } from './wake.ts'

const ROWS = [
  ['at half of the acknowledged count', 50, 25, true],
  ['above half', 50, 26, false],
  ['below half', 50, 24, true],
  ['at half of an odd count, rounded down', 7, 3, true],
  ['above half of an odd count', 7, 4, false],
  ['at zero', 1, 0, true],
  ['not at an unchanged count', 0, 0, false],
  ['not above the acknowledged count', 3, 5, false],
] as const

for (const [name, acknowledged, count, woken] of ROWS) {
  test(`low water: ${name} (${count} of ${acknowledged})`, () => {
    assert.equal(reachedLowWater(acknowledged, count), woken)
    assert.equal(acknowledgedAfterIssue(acknowledged, count), woken ? count : acknowledged)
  })
}

test('a pool of 50 wakes its device at each halving and at zero', () => {
  let acknowledged = 50
  const woken: number[] = []
  for (let count = 49; count >= 0; count--) {
    if (!reachedLowWater(acknowledged, count)) continue
    woken.push(count)
    acknowledged = count
  }
  assert.deepEqual(woken, [25, 12, 6, 3, 1, 0])
})

test('a token acknowledges the counts of its answer, unless a wake announced fewer since', () => {
  assert.equal(acknowledgedByToken(50, 40), 40)
  assert.equal(acknowledgedByToken(25, 40), 25)
})
