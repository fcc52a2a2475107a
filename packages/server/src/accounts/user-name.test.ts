import assert from 'node:assert/strict'
import test from 'node:test'
import { MatrixError } from '../matrix-error.ts'
import { meantUserId, newUserId, randomLocalpart } from './user-name.ts'

test('a new user name is lowered', () => {
  assert.equal(newUserId('Alice.B_1=/+-', 'example.org'), '@alice.b_1=/+-:example.org')
})

test('names outside the grammar are refused, also letters that would fold into it', () => {
  for (const name of ['', 'a b', 'a:b', '@a', 'ä', '\u212A', 'a\n', '__proto__\0']) {
    assert.throws(
      () => newUserId(name, 'example.org'),
      (error) => error instanceof MatrixError && error.errcode === 'M_INVALID_USERNAME',
      JSON.stringify(name),
    )
  }
})

test('a whole user ID has at most 255 bytes', () => {
  const room = 255 - '@:example.org'.length
  assert.equal(newUserId('a'.repeat(room), 'example.org').length, 255)
  assert.throws(() => newUserId('a'.repeat(room + 1), 'example.org'), /255 bytes/)
})

test('a login means an account by localpart or whole ID, in any case', () => {
  for (const user of ['alice', 'ALICE', '@alice:example.org', '@Alice:example.org']) {
    assert.equal(meantUserId(user, 'example.org'), '@alice:example.org')
  }
})

test('a login cannot mean an account of another server, or a name that no account has', () => {
  for (const user of ['@alice:elsewhere.org', '@alice', 'alice:example.org', '', 'a'.repeat(300)]) {
    assert.equal(meantUserId(user, 'example.org'), undefined, user)
  }
})

test('a random localpart is one that an account may have', () => {
  const localpart = randomLocalpart()
  assert.equal(newUserId(localpart, 'example.org'), `@${localpart}:example.org`)
})
