import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pagesFrom, readCursor, writeCursor } from './issued-pages.ts'

const END = Number.MAX_SAFE_INTEGER

test('a page without a cursor reads every pool from its end', () => {
  assert.deepEqual(pagesFrom([4, 2], undefined), [
    { pool: 4, place: END },
    { pool: 2, place: END },
  ])
})

test('a page continues below the cursor, and reads later pools from their end', () => {
  assert.deepEqual(pagesFrom([4, 2, 9], { pool: 2, place: 7 }), [
    { pool: 2, place: 7 },
    { pool: 9, place: END },
  ])
})

test('a cursor of a pool that the device does not have reads nothing', () => {
  assert.deepEqual(pagesFrom([4, 2], { pool: 3, place: 7 }), [])
})

test('a cursor is read as it was written', () => {
  assert.deepEqual(readCursor(writeCursor({ pool: 12, place: 345 })), { pool: 12, place: 345 })
  assert.equal(readCursor(undefined), undefined)
})

for (const from of [
  '',
  '1',
  '1-',
  '-1',
  'a-b',
  '1-2-3',
  '1-2 ',
  '1234567890123456-1',
  '1-1234567890123456',
]) {
  test(`from=${JSON.stringify(from)} is refused`, () => {
    assert.throws(() => readCursor(from), { status: 400, errcode: 'M_INVALID_PARAM' })
  })
}
