/** The lanes in which a process counts its writes: which can be taken, which rest, and their number. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MatrixError } from '../../matrix-error.ts'
import { FenceLanes } from './fence-lanes.ts'

test('a lane is used again when its transaction has ended', () => {
  const lanes = new FenceLanes(2)
  for (let n = 0; n < 100; n++) {
    const [one, two] = [lanes.take(), lanes.take()]
    assert.deepEqual(new Set([one, two]), new Set([0, 1]))
    lanes.release(one, false)
    lanes.release(two, false)
  }
})

test('lanes of broken connections rest, and the number of new lanes is limited', () => {
  const lanes = new FenceLanes(2)
  const taken = new Set<number>()
  const breakOne = (): void => {
    const lane = lanes.take()
    assert.ok(!taken.has(lane), 'a lane is taken whose transaction may not have ended')
    taken.add(lane)
    lanes.release(lane, true)
  }
  const isUnavailable = (error: unknown): boolean => error instanceof MatrixError && error.status === 503
  assert.throws(() => {
    for (let n = 0; n < 1_000; n++) breakOne()
  }, isUnavailable)
  assert.equal(taken.size, 16)
})
