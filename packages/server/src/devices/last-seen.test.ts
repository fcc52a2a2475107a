import assert from 'node:assert/strict'
import test from 'node:test'
import type { TokenHash } from '../session.ts'
import { SeenSessions } from './last-seen.ts'

const NOW = 1_700_000_000_000
const TEN_MINUTES_MS = 10 * 60 * 1000
const TOKEN = 'token' as TokenHash

const rows = [
  ['again within ten minutes is not noted', TEN_MINUTES_MS - 1, false],
  ['after ten minutes is noted', TEN_MINUTES_MS, true],
  ['with a clock moved back a little is not noted', 1 - TEN_MINUTES_MS, false],
  ['with a clock moved back by ten minutes is noted', -TEN_MINUTES_MS, true],
] as const
for (const [name, afterMs, expected] of rows) {
  test(`a session seen ${name}`, () => {
    const sessions = new SeenSessions()
    sessions.noted(TOKEN, NOW)
    assert.equal(sessions.isDue(TOKEN, NOW + afterMs), expected)
  })
}

test('a session seen first is noted, and another one as well', () => {
  const sessions = new SeenSessions()
  assert.equal(sessions.isDue(TOKEN, NOW), true)
  sessions.noted(TOKEN, NOW)
  assert.equal(sessions.isDue('other' as TokenHash, NOW), true)
})
