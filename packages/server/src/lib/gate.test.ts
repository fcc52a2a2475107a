import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as immediate } from 'node:timers/promises'
import { Gate } from './gate.ts'

test('callers above the places wait in line, each until one leaves', async () => {
  const gate = new Gate(2, 10)
  const entered: number[] = []
  for (let i = 1; i <= 4; i++) void gate.enter('a')?.then(() => entered.push(i))
  await immediate()
  assert.deepEqual(entered, [1, 2])
  gate.leave('a')
  await immediate()
  assert.deepEqual(entered, [1, 2, 3])
  gate.leave('a')
  await immediate()
  assert.deepEqual(entered, [1, 2, 3, 4])
})

test('the line has an end, per key', async () => {
  const gate = new Gate(1, 1)
  await gate.enter('a')
  const second = gate.enter('a')
  assert.equal(gate.enter('a'), undefined)
  await gate.enter('b')
  gate.leave('a')
  await second
  gate.leave('a')
  await gate.enter('a')
})
