import assert from 'node:assert/strict'
import test from 'node:test'
import type { DeviceId, UserId } from '@latchkey/protocol'
import type { DeviceRef } from '../session.ts'
import { budgetFor, ClaimBudgets } from './depletion.ts'
import type { Claimer } from './commands.ts'
import { LimitedClaims } from './limited-claims.ts'

const START = 1_700_000_000_000
const MINUTE_MS = 60_000
const DEVICE = 1 as DeviceRef
const OTHER_DEVICE = 2 as DeviceRef
const RATE = { burst: 60, perSecond: 1 / 60 }

function claimer(name: string): Claimer {
  const id = `@${name}:test.example`
  return { by: 'user', id, name: id }
}

const SERVER: Claimer = { by: 'server', id: 'remote.example', name: 'remote.example' }

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

test('a hundred users of this server have no bucket together', () => {
  const budgets = new ClaimBudgets(RATE)
  for (let n = 0; n < 100; n++) assert.equal(taken(budgets, claimer(`user${n}`), 100), 60)
})

test('another server takes ten times as many for its users, and the next server as many', () => {
  const budgets = new ClaimBudgets(RATE)
  assert.equal(taken(budgets, SERVER, 1000), 600)
  assert.equal(taken(budgets, SERVER, 100, DEVICE, START + MINUTE_MS), 10)
  assert.equal(taken(budgets, { ...SERVER, id: 'elsewhere.example' }, 1000), 600)
  assert.equal(taken(budgets, SERVER, 1000, OTHER_DEVICE), 600)
})

test('a user gets no key of a reserve, another server one per device and minute', () => {
  const budgets = new ClaimBudgets(RATE)
  const ofReserve = (who: Claimer, now = START, device = DEVICE): boolean[] =>
    [1, 2].map(() => budgets.takesOfReserve(who, device, now))
  assert.deepEqual(ofReserve(claimer('eve')), [false, false])
  assert.deepEqual(ofReserve(SERVER), [true, false])
  assert.deepEqual(ofReserve(SERVER, START, OTHER_DEVICE), [true, false])
  assert.deepEqual(ofReserve({ ...SERVER, id: 'elsewhere.example' }), [true, false])
  assert.deepEqual(ofReserve(SERVER, START + MINUTE_MS), [true, false])
})

test('without a defence no budget is used up', () => {
  const budget = budgetFor(undefined, claimer('eve'), DEVICE, START)
  assert.deepEqual([budget.takesOneTimeKey(), budget.takesOfReserve()], [true, true])
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
