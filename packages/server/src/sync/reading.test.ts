/** Rules of one reading of `/sync`. */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import type { UserId } from '@latchkey/protocol'
import type { SyncReading } from './port.ts'
import { acknowledgedUpTo, advertisesCounts, BEGINNING, isAnswer, rangeOf } from './reading.ts'

describe('a reading begins', () => {
  const rows = [
    [
      'at the beginning without device lists, for a first sync',
      undefined,
      false,
      false,
      BEGINNING,
      undefined,
    ],
    [
      'at the beginning with all device lists, for a token that cannot be continued',
      undefined,
      false,
      true,
      BEGINNING,
      BEGINNING,
    ],
    ['at the token', 5, false, true, 5, 5],
    ['at the token with all device lists, after a rollback of the database', 5, true, true, 5, BEGINNING],
    ['at position 0 as at any other', 0, false, true, 0, 0],
  ] as const
  for (const [name, since, everyone, everyoneFromBeginning, from, listsFrom] of rows)
    test(name, () =>
      assert.deepEqual(rangeOf({ since, listsSince: since, everyone }, { everyoneFromBeginning }), {
        from,
        listsFrom,
      }),
    )
})

describe('a request acknowledges', () => {
  const rows = [
    ['answers up to its token, with its first reading', 5, true, 5],
    ['nothing, with a later reading', 5, false, undefined],
    ['nothing, without a token', undefined, true, undefined],
  ] as const
  for (const [name, since, confirms, expected] of rows)
    test(name, () => assert.equal(acknowledgedUpTo({ since }, { confirms }), expected))
})

const IDLE: SyncReading = {
  epoch: 'e',
  since: 5,
  newEpoch: false,
  position: 5,
  lists: 5,
  toDevice: [],
  changedUsers: [],
  accountData: [],
  signalled: false,
  pools: { epoch: 'e', version: 0, generation: 0, algorithms: [] },
}

describe('a reading', () => {
  const user = '@bob:test.example' as UserId
  const rows: readonly (readonly [string, Partial<SyncReading>, boolean, boolean, boolean])[] = [
    // name, reading, may wait, is answered, advertises its counts
    ['without news waits', {}, true, false, false],
    ['without news waits although the stream moved on', { position: 6 }, true, false, false],
    ['without news is answered when the time is over; its token does not move', {}, false, true, false],
    ['without news is answered when the time is over; its token moves', { position: 6 }, false, true, true],
    ['from the beginning is answered', { since: undefined }, true, true, true],
    ['of a new epoch is answered', { newEpoch: true }, true, true, false],
    ['with a message is answered', { position: 6, toDevice: ['{}'] }, true, true, true],
    ['with a changed device list is answered', { position: 6, changedUsers: [user] }, true, true, true],
    [
      'with account data is answered',
      { position: 6, accountData: [{ type: 't', content: '{}' }] },
      true,
      true,
      true,
    ],
    ['with a signal is answered', { position: 6, signalled: true }, true, true, true],
  ]
  for (const [name, change, mayWait, answered, advertises] of rows) {
    test(name, () => {
      const reading = { ...IDLE, ...change }
      assert.equal(isAnswer(reading, { mayWait }), answered)
      assert.equal(advertisesCounts(reading, { mayWait }), advertises)
    })
  }
})
