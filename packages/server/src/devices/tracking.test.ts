/** Rules of tracked device lists. */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import type { UserId } from '@latchkey/protocol'
import type { UserRef } from '../session.ts'
import { type AskedUser, decideTracking, MAX_AWAITED } from './tracking.ts'

const SELF = 1 as UserRef

function account(userRef: number, tracked = false): AskedUser {
  return { kind: 'account', userRef: userRef as UserRef, tracked }
}

function name(userId: string, awaited = false): AskedUser {
  return { kind: 'name', userId: userId as UserId, awaited }
}

describe('a user who asks for keys', () => {
  const rows: readonly (readonly [string, readonly AskedUser[], number[], string[]])[] = [
    ['tracks accounts', [account(2), account(3)], [2, 3], []],
    ['tracks an account once', [account(2, true)], [], []],
    ['does not track themselves', [account(SELF), account(2)], [2], []],
    ['awaits a name without an account', [name('@x:h')], [], ['@x:h']],
    ['awaits a name once', [name('@x:h', true)], [], []],
    [
      'awaits names in the order of their bytes',
      [name('@b:h'), name('@a:h'), name('@B:h')],
      [],
      ['@B:h', '@a:h', '@b:h'],
    ],
    [
      'orders by UTF-8 bytes, not by UTF-16',
      [name('@\u{1F600}:h'), name('@\uFFFD:h')],
      [],
      ['@\uFFFD:h', '@\u{1F600}:h'],
    ],
  ]
  for (const [title, asked, targets, names] of rows)
    test(title, () => assert.deepEqual(decideTracking(SELF, asked), { targets, names }))

  test('awaits at most 1000 names of one request, the first ones', () => {
    const names = Array.from({ length: MAX_AWAITED + 1 }, (_, n) => `@${10_000 - n}:h`)
    const found = decideTracking(SELF, [...names.map((id) => name(id)), account(2)])
    assert.equal(MAX_AWAITED, 1000)
    assert.deepEqual(found, { targets: [2], names: names.slice(0, -1).toSorted() })
  })

  test('names that are awaited already count towards the 1000', () => {
    const known = Array.from({ length: MAX_AWAITED }, (_, n) => name(`@${n}:h`, true))
    assert.deepEqual(decideTracking(SELF, [...known, name('@new:h')]).names, [])
  })
})
