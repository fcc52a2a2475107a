import assert from 'node:assert/strict'
import test from 'node:test'
import { MatrixError } from '../matrix-error.ts'
import { MAX_PASSWORD_BYTES, requireGoodPassword } from './password-policy.ts'

function errcodeOf(password: string): string | undefined {
  try {
    requireGoodPassword(password, 8)
    return undefined
  } catch (error) {
    return error instanceof MatrixError ? error.errcode : 'a bug'
  }
}

test('a password has at least the configured number of characters, regardless of their bytes', () => {
  assert.equal(errcodeOf('password'), undefined)
  assert.equal(errcodeOf('passwor'), 'M_WEAK_PASSWORD')
  assert.equal(errcodeOf('🔑'.repeat(7)), 'M_WEAK_PASSWORD')
  assert.equal(errcodeOf('🔑'.repeat(8)), undefined)
})

test('a password of more than 512 bytes is refused', () => {
  assert.equal(errcodeOf('a'.repeat(MAX_PASSWORD_BYTES)), undefined)
  assert.equal(errcodeOf('a'.repeat(MAX_PASSWORD_BYTES + 1)), 'M_INVALID_PARAM')
})
