import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Algorithm, KeyId, KeyMaterial } from '@latchkey/protocol'
import type { DeviceRef } from '../session.ts'
import { ConflictMemory } from './conflict.ts'
import type { UploadedKey } from './port.ts'

const DEVICE = 1 as DeviceRef
const HOUR_MS = 60 * 60 * 1000

function keys(...materials: string[]): UploadedKey[] {
  return materials.map((material, i) => ({
    algorithm: 'signed_curve25519' as Algorithm,
    keyId: `K${i}` as KeyId,
    material: material as KeyMaterial,
    json: '',
  }))
}

test('the same materials again count as a second try from 2 s to an hour later, and only once', () => {
  for (const [age, expected] of [
    [0, false],
    [1_999, false],
    [2_000, true],
    [HOUR_MS, true],
    [HOUR_MS + 1, false],
  ] as const) {
    const memory = new ConflictMemory()
    assert.equal(memory.isSecondTry(DEVICE, keys('a', 'b'), 10), false)
    assert.equal(memory.isSecondTry(DEVICE, keys('b', 'a'), 10 + age), expected, `${age} ms`)
    if (expected) assert.equal(memory.isSecondTry(DEVICE, keys('a', 'b'), 10 + age), false)
  }
})

test('other materials, or those of another device, are a first try', () => {
  const memory = new ConflictMemory()
  memory.isSecondTry(DEVICE, keys('a'), 0)
  assert.equal(memory.isSecondTry(2 as DeviceRef, keys('a'), 5_000), false)
  assert.equal(memory.isSecondTry(DEVICE, keys('a', 'b'), 5_000), false)
})

test('a try that comes too soon does not put off the next', () => {
  const memory = new ConflictMemory()
  for (const now of [0, 700, 1_400]) assert.equal(memory.isSecondTry(DEVICE, keys('a'), now), false)
  assert.equal(memory.isSecondTry(DEVICE, keys('a'), 2_100), true)
})
