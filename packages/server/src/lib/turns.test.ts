import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as immediate } from 'node:timers/promises'
import { inTurns } from './turns.ts'

async function piecesOf(items: readonly number[]): Promise<(readonly number[])[]> {
  const pieces: (readonly number[])[] = []
  for await (const piece of inTurns(items, 2)) pieces.push(piece)
  return pieces
}

test('a walk has every item once, in order, in pieces', async () => {
  const pieces = await piecesOf([1, 2, 3, 4, 5])
  assert.deepEqual(pieces, [[1, 2], [3, 4], [5]])
  assert.deepEqual(await piecesOf([]), [])
})

test('walks take turns, and one piece of one walk runs per turn of the event loop', async () => {
  const order: string[] = []
  let turn = 0
  const inTurn = new Map<number, number>()
  const walk = async (name: string): Promise<void> => {
    for await (const [item] of inTurns([1, 2, 3], 1)) {
      order.push(`${name}${item}`)
      inTurn.set(turn, (inTurn.get(turn) ?? 0) + 1)
    }
  }
  const walks = Promise.all([walk('a'), walk('b'), walk('c')])
  for (; order.length < 9; turn++) await immediate()
  await walks
  assert.deepEqual(order.join(' '), 'a1 b1 c1 a2 b2 c2 a3 b3 c3')
  const [first, ...later] = inTurn.values()
  assert.equal(first, 3, 'a first piece does not wait')
  assert.deepEqual(later, Array(6).fill(1))
})
