import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Algorithm, KeyId, KeyMaterial } from '@latchkey/protocol'
import { classifyTry, tryOf } from './conflict.ts'
import type { UploadedKey } from './key.ts'

const HOUR_MS = 60 * 60 * 1000

function keys(...materials: string[]): UploadedKey[] {
  return materials.map((material, i) => ({
    algorithm: 'signed_curve25519' as Algorithm,
    keyId: `K${i}` as KeyId,
    material: material as KeyMaterial,
    json: '',
  }))
}

test('the same materials again, in any order, are a second try from 2 s to an hour later', () => {
  for (const [age, expected] of [
    [-1, 'repeat'],
    [0, 'repeat'],
    [1_999, 'repeat'],
    [2_000, 'second'],
    [HOUR_MS, 'second'],
    [HOUR_MS + 1, 'first'],
  ] as const) {
    const remembered = tryOf(keys('a', 'b'), 10)
    assert.equal(classifyTry(remembered, tryOf(keys('b', 'a'), 10 + age)), expected, `${age} ms`)
  }
})

test('other materials, and an upload without a remembered refusal, are a first try', () => {
  const remembered = tryOf(keys('a'), 0)
  assert.equal(classifyTry(remembered, tryOf(keys('a', 'b'), 5_000)), 'first')
  assert.equal(classifyTry(undefined, tryOf(keys('a'), 5_000)), 'first')
})
