import type { KeyMaterial } from '@latchkey/protocol'
import { createHash } from 'node:crypto'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { keyHash, materialHash, materialOfJson } from './key.ts'

test('material is remembered by the first 16 bytes of its SHA-256 and shown by all of it', () => {
  const material = 'abc' as KeyMaterial
  const sha256 = createHash('sha256').update(material).digest()
  assert.equal(materialHash(material), sha256.subarray(0, 16).toString('hex'))
  assert.equal(keyHash(material), sha256.toString('base64url'))
})

test('the material is the key itself, regardless of its signatures', () => {
  assert.equal(materialOfJson('{"key":"abc","signatures":{"@a:b":{}}}'), 'abc')
  assert.equal(materialOfJson('"abc"'), 'abc')
})
