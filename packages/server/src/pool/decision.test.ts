import assert from 'node:assert/strict'
import { test } from 'node:test'
import { invalidParam } from '../matrix-error.ts'
import { decided, RememberedRefusal } from './decision.ts'

test('a refusal stores nothing', () => {
  const refusal = invalidParam('no')
  const decision = decided(() => {
    throw refusal
  })
  assert.deepEqual(decision, { kind: 'refusal', refusal, changes: {} })
})

test('a remembered refusal stores what it remembers', () => {
  const refusal = invalidParam('no')
  const changes = { refused: { materials: 'm', ts: 1 } }
  const decision = decided(() => {
    throw new RememberedRefusal(refusal, changes)
  })
  assert.deepEqual(decision, { kind: 'refusal', refusal, changes })
})

test('a bug is not a refusal', () => {
  const bug = (): never => {
    throw new TypeError('a bug')
  }
  assert.throws(() => decided(bug), TypeError)
})
