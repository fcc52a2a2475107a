/** Rate limit of a manager's requests: bounded by time alone, in whichever direction the clock moves. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isAllowed } from './rate-limit.ts'
import { NEW_STATUS } from './records.ts'

const HOUR_MS = 3_600_000

test('the allowance refills with time', () => {
  const spent = { ...NEW_STATUS, rateLimits: { keys_query: { at: HOUR_MS, left: 0 } } }
  assert.equal(isAllowed(spent, 'keys_query', HOUR_MS), false)
  assert.equal(isAllowed(spent, 'keys_query', 2 * HOUR_MS), true)
})

test('a clock that is moved back does not delay requests until it has caught up', () => {
  const spent = { ...NEW_STATUS, rateLimits: { keys_query: { at: 1000 * HOUR_MS, left: 0 } } }
  assert.equal(isAllowed(spent, 'keys_query', HOUR_MS), true)
})
