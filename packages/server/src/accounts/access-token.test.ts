import assert from 'node:assert/strict'
import test from 'node:test'
import { hashToken, newAccessToken, newDeviceId } from './access-token.ts'

test('access tokens are recognisable, differ, and do not show in their hash', () => {
  const token = newAccessToken()
  assert.match(token, /^lk_[\w-]{43}$/)
  assert.notEqual(token, newAccessToken())
  assert.match(hashToken(token), /^[\w-]{43}$/)
  assert.ok(!hashToken(token).includes(token.slice(3)))
})

test('a generated device ID is ten capital letters', () => {
  assert.match(newDeviceId(), /^[A-Z]{10}$/)
})
