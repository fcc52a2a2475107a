/** Rules of the names of claimers. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFreshNote, unusedBefore } from './claimer-names.ts'

const DAY_MS = 24 * 60 * 60 * 1000

test('a name whose note is fresh enough for a record at any time is not unused when the record is kept', () => {
  const noted = 1_000
  for (const age of [0, 1, DAY_MS - 1, DAY_MS, 2 * DAY_MS]) {
    // The latest record that the note covers, and the last cutoff that keeps the record.
    if (isFreshNote(noted, noted + age)) assert.ok(noted >= unusedBefore(noted + age), `${age} ms`)
  }
  assert.equal(isFreshNote(noted, noted + DAY_MS), false)
})
