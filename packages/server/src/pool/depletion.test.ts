import assert from 'node:assert/strict'
import test from 'node:test'
import type { DeviceId, UserId } from '@latchkey/protocol'
import type { DeviceRef } from '../session.ts'
import { ClaimBudgets } from './depletion.ts'
import type { Claimer } from './commands.ts'
import { LimitedClaims } from './limited-claims.ts'

const START = 1_700_000_000_000
const MINUTE_MS = 60_000
const DEVICE = 1 as DeviceRef
const OTHER_DEVICE = 2 as DeviceRef
const RATE = { burst: 60, perSecond: 1 / 60 }

function claimer(name: string, origin = 'test.example'): Claimer {
  const user = `@${name}:${origin}` as UserId
  return { user, origin, name: user }
}

/** How many of `tries` claims take a one-time key. */
function taken(
  budgets: ClaimBudgets,
  who: Claimer,
  tries: number,
  device: DeviceRef = DEVICE,
  now = START,
): number {
  return Array.from({ length: tries }, () => budgets.takesOneTimeKey(who, device, now)).filter(Boolean).length
}

test('a user takes 60 keys of a device at once, and then one a minute', () => {
  const budgets = new ClaimBudgets(RATE)
  assert.equal(taken(budgets, claimer('eve'), 100), 60)
  assert.equal(taken(budgets, claimer('eve'), 5, DEVICE, START + 3 * MINUTE_MS), 3)
  assert.equal(taken(budgets, claimer('eve'), 100, DEVICE, START + 1000 * MINUTE_MS), 60)
})

test('other users, and other devices, have budgets of their own', () => {
  const budgets = new ClaimBudgets(RATE)
  taken(budgets, claimer('eve'), 100)
  assert.equal(taken(budgets, claimer('eve'), 100, OTHER_DEVICE), 60)
  assert.equal(taken(budgets, claimer('bob'), 100), 60)
})

test('the users of one server together take ten times as many; those of another are not held back', () => {
  const budgets = new ClaimBudgets(RATE)
  const each = Array.from({ length: 12 }, (_, i) => taken(budgets, claimer(`user${i}`), 60))
  assert.deepEqual(each, [...Array.from({ length: 10 }, () => 60), 0, 0])
  assert.equal(taken(budgets, claimer('user0', 'elsewhere.example'), 60), 60)
  assert.equal(taken(budgets, claimer('user11'), 60, DEVICE, START + MINUTE_MS), 10)
})

test('a user past its own budget uses up nothing of its server, nor the other way round', () => {
  const budgets = new ClaimBudgets(RATE)
  taken(budgets, claimer('eve'), 10_000)
  const others = Array.from({ length: 9 }, (_, i) => taken(budgets, claimer(`user${i}`), 60))
  assert.deepEqual(
    others,
    others.map(() => 60),
  )
  assert.equal(taken(budgets, claimer('late'), 100), 0)
  // The server has 600 back after an hour; all 60 of a user that was refused meanwhile are still there.
  assert.equal(taken(budgets, claimer('late'), 100, DEVICE, START + 60 * MINUTE_MS), 60)
})

test('claims from a million other devices do not give an emptied budget back', () => {
  const budgets = new ClaimBudgets(RATE, 1000)
  taken(budgets, claimer('eve'), 60)
  for (let i = 0; i < 1_000_000; i++) budgets.takesOneTimeKey(claimer('eve'), (10 + i) as DeviceRef, START)
  assert.equal(taken(budgets, claimer('eve'), 10), 0)
})

test('a rate-limited claimer is reported at once, then every ten minutes with the number since', () => {
  const limited = new LimitedClaims()
  const eve = '@eve:test.example' as UserId
  const target = { userId: '@alice:test.example' as UserId, deviceId: 'A' as DeviceId }
  const note = (now: number): number => limited.note(eve, target, now)
  assert.deepEqual([note(START), note(START + 1), note(START + 9 * MINUTE_MS)], [1, 0, 0])
  assert.equal(note(START + 10 * MINUTE_MS), 3)
  assert.equal(note(START + 20 * MINUTE_MS), 1)
  assert.equal(limited.note(eve, { ...target, deviceId: 'B' as DeviceId }, START), 1)
})
