/** Rules of sync tokens: whose they are, and how a reading continues from one (key-pool.md "Rollback fence"). */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import type { DeviceRef } from '../session.ts'
import { continueFrom, decodeToken, encodeToken } from './token.ts'

const SECRET = 'secret'
const DEVICE = { deviceRef: 1 as DeviceRef }
const TOKEN = { epoch: 'now', position: 7 }
const PAGE = { ...TOKEN, lists: 9 }

describe('a sync token', () => {
  const text = encodeToken(SECRET, DEVICE, TOKEN)
  const page = encodeToken(SECRET, DEVICE, PAGE)
  const rows: readonly (readonly [string, string, object | undefined])[] = [
    ['is read by its device', text, TOKEN],
    ['of a page is read by its device', page, PAGE],
    ['of a page with other lists is none', page.replace('.9.', '.8.'), undefined],
    ['of a page without lists is none', page.replace('.9.', '.'), undefined],
    ['of a page named as another is none', page.replace('s2', 's1'), undefined],
    ['of another version is none', text.replace('s1', 's2'), undefined],
    ['with another position is none', text.replace('.7.', '.8.'), undefined],
    ['with another epoch is none', text.replace('now', 'old'), undefined],
    ['with a part more is none', `${text}.`, undefined],
    ['with a shorter signature is none', text.slice(0, -2), undefined],
    ['with an endless number is none', text.replace('.7.', `.${'7'.repeat(17)}.`), undefined],
    ['of no form is none', 'x', undefined],
  ]
  for (const [name, given, expected] of rows)
    test(name, () => assert.deepEqual(decodeToken(SECRET, DEVICE, given), expected))

  test('of another device, or of another server, is none', () => {
    assert.equal(decodeToken(SECRET, { deviceRef: 2 as DeviceRef }, text), undefined)
    assert.equal(decodeToken('other', DEVICE, text), undefined)
  })
})

describe('a reading continues', () => {
  const end = { epoch: 'now', position: 9, formerEnd: undefined }
  const former = { ...end, formerEnd: 5 }
  const rows = [
    ['from the beginning without a token', undefined, end, [undefined, false, false]],
    [
      'from the position of a token of the present epoch',
      { epoch: 'now', position: 7 },
      end,
      [7, false, false],
    ],
    ['from the end of the stream', { epoch: 'now', position: 9 }, end, [9, false, false]],
    ['from a token of an earlier epoch', { epoch: 'old', position: 4 }, former, [4, true, false]],
    ['from the last position of an earlier epoch', { epoch: 'old', position: 5 }, former, [5, true, false]],
    [
      'from the end of an earlier epoch, with all lists, for what is lost',
      { epoch: 'old', position: 6 },
      former,
      [5, true, true],
    ],
  ] as const
  for (const [name, token, at, [since, newEpoch, everyone]] of rows)
    test(name, () =>
      assert.deepEqual(continueFrom(token, at), { since, listsSince: since, newEpoch, everyone }),
    )

  test('after a page with the device lists that the page did not have', () => {
    const page = { since: 7, listsSince: 9, newEpoch: false, everyone: false }
    assert.deepEqual(continueFrom(PAGE, end), page)
    const ended = { since: 5, listsSince: 5, newEpoch: true, everyone: true }
    assert.deepEqual(continueFrom({ epoch: 'old', position: 5, lists: 6 }, former), ended)
  })

  test('not, but proves a rollback, after a page of a stream that was longer', () =>
    assert.match(continueFrom({ ...PAGE, lists: 10 }, end).proof ?? '', /position 10, the end is 9/))

  test('not, but proves a rollback, from a position that the stream has not reached', () =>
    assert.match(continueFrom({ epoch: 'now', position: 10 }, end).proof ?? '', /position 10, the end is 9/))

  test('not, but proves a rollback, from an unknown epoch', () =>
    assert.match(continueFrom({ epoch: 'lost', position: 1 }, end).proof ?? '', /unknown epoch lost/))
})
