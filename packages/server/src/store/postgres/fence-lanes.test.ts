/** The lanes in which a process counts its writes: how many there can be, and which rest. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MatrixError } from '../../matrix-error.ts'
import { Fence } from './fence.ts'

function fenceWith(lanes: number): Fence {
  return new Fence({
    lanes,
    witness: undefined,
    otherWitnesses: () => [],
    onFence() {},
    onNewEpoch() {},
    forget() {},
    now: Date.now,
  })
}

test('a lane is used again when its transaction has ended', () => {
  const fence = fenceWith(2)
  for (let n = 0; n < 100; n++) {
    const [one, two] = [fence.takeLane(), fence.takeLane()]
    assert.deepEqual(new Set([one, two]), new Set([0, 1]))
    fence.releaseLane(one, false)
    fence.releaseLane(two, false)
  }
})

test('lanes of connections that broke rest, and there is an end to new ones', () => {
  const fence = fenceWith(2)
  const taken = new Set<number>()
  const breakOne = (): void => {
    const lane = fence.takeLane()
    assert.ok(!taken.has(lane), 'a lane is used in which a transaction may still be under way')
    taken.add(lane)
    fence.releaseLane(lane, true)
  }
  const isUnavailable = (error: unknown): boolean => error instanceof MatrixError && error.status === 503
  assert.throws(() => {
    for (let n = 0; n < 1_000; n++) breakOne()
  }, isUnavailable)
  assert.equal(taken.size, 16)
})
