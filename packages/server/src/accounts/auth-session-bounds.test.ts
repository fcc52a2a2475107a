import assert from 'node:assert/strict'
import test from 'node:test'
import { sessionsToDrop } from './auth-session-bounds.ts'

test('an owner over its bound drops its own sessions, and then no other owner loses one', () => {
  assert.deepEqual(sessionsToDrop('user', { ofOwner: 10, ofKind: 10_000 }), { ofOwner: 0, ofLargest: 0 })
  assert.deepEqual(sessionsToDrop('user', { ofOwner: 11, ofKind: 10_001 }), { ofOwner: 1, ofLargest: 0 })
  assert.deepEqual(sessionsToDrop('network', { ofOwner: 11, ofKind: 20 }), { ofOwner: 0, ofLargest: 0 })
  assert.deepEqual(sessionsToDrop('network', { ofOwner: 257, ofKind: 257 }), { ofOwner: 1, ofLargest: 0 })
})

test('over the bound in all the owner with the most drops one', () => {
  assert.deepEqual(sessionsToDrop('network', { ofOwner: 1, ofKind: 10_001 }), { ofOwner: 0, ofLargest: 1 })
})
