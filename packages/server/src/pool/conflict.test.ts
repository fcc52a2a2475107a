import { key, keys, poolWith } from '@latchkey/testing/pool-facts.ts'
import { CONFLICTS } from '@latchkey/protocol'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { classifyTry, conflictError, HEAL_WITHIN_MS, tryOf } from './conflict.ts'
import { decideOutcomes } from './outcomes.ts'

const HOUR_MS = 60 * 60 * 1000

test('the same materials again, in any order, are a second try from 2 s to an hour later', () => {
  assert.equal(HEAL_WITHIN_MS, HOUR_MS)
  for (const [age, expected] of [
    [-1, 'repeat'],
    [0, 'repeat'],
    [1_999, 'repeat'],
    [2_000, 'second'],
    [HOUR_MS, 'second'],
    [HOUR_MS + 1, 'first'],
  ] as const) {
    const remembered = tryOf(keys('A=a B=b'), 10)
    assert.equal(classifyTry(remembered, tryOf(keys('B=b A=a'), 10 + age)), expected, `${age} ms`)
  }
})

test('a try is recognised by its materials, not by their IDs', () => {
  assert.equal(classifyTry(tryOf(keys('A=a B=b'), 0), tryOf(keys('C=b D=a'), 5_000)), 'second')
})

test('other materials, another algorithm, and an upload without a remembered refusal are a first try', () => {
  const remembered = tryOf(keys('A=a'), 0)
  assert.equal(classifyTry(remembered, tryOf(keys('A=a B=b'), 5_000)), 'first')
  assert.equal(classifyTry(remembered, tryOf(keys('x/A=a'), 5_000)), 'first')
  assert.equal(classifyTry(undefined, tryOf(keys('A=a'), 5_000)), 'first')
})

test('a conflict is a 400 in the text that SDKs parse, with every conflicting key', () => {
  const oneTimeKeys = keys('A=a2 B=b2')
  const { conflicts } = decideOutcomes(
    oneTimeKeys,
    poolWith({ log: 'A=a B=b' }, { oneTimeKeys }),
    () => false,
  )
  const error = conflictError(conflicts)
  assert.equal(error.status, 400)
  assert.equal(error.errcode, 'io.github.johennes.msc4420.M_DUPLICATE_ONE_TIME_KEY')
  assert.equal(
    error.message,
    `One time key signed_curve25519:A already exists. Old key: ${key('A=a').json}; new key: ${key('A=a2').json}`,
  )
  assert.deepEqual(error.extra, {
    [CONFLICTS]: {
      'signed_curve25519:A': { stored_key: 'a', uploaded_key: 'a2' },
      'signed_curve25519:B': { stored_key: 'b', uploaded_key: 'b2' },
    },
  })
})
