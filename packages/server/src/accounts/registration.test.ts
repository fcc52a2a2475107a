/** Rules of a registration: the name, and the token. */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import { MatrixError } from '../matrix-error.ts'
import { isUsable, requireRegistrable, type StoredRegistrationToken } from './registration.ts'

const NOW = 1_700_000_000_000
const FREE: StoredRegistrationToken = { uses: 0, usesAllowed: undefined, expiresTs: undefined }

describe('a registration token', () => {
  const rows: readonly (readonly [string, Partial<StoredRegistrationToken> | undefined, boolean])[] = [
    ['that does not exist is not usable', undefined, false],
    ['without limits is usable', {}, true],
    ['without a limit of uses is usable however often', { uses: 1_000_000 }, true],
    ['with a use left is usable', { uses: 1, usesAllowed: 2 }, true],
    ['whose uses are spent is not usable', { uses: 2, usesAllowed: 2 }, false],
    ['with no use allowed is not usable', { usesAllowed: 0 }, false],
    ['is usable before it expires', { expiresTs: NOW + 1 }, true],
    ['is not usable at the moment it expires', { expiresTs: NOW }, false],
    ['is not usable after it expired, with uses left', { usesAllowed: 2, expiresTs: NOW - 1 }, false],
  ]
  for (const [name, token, expected] of rows)
    test(name, () => assert.equal(isUsable(token && { ...FREE, ...token }, NOW), expected))
})

describe('a registration', () => {
  const spent = { stored: { ...FREE, uses: 1, usesAllowed: 1 } }
  const rows: readonly (readonly [string, Parameters<typeof requireRegistrable>[0], string | undefined])[] = [
    ['of a free name is allowed', { nameTaken: false }, undefined],
    [
      'of a free name with a usable token is allowed',
      { nameTaken: false, token: { stored: FREE } },
      undefined,
    ],
    ['of a taken name is refused', { nameTaken: true }, '400 M_USER_IN_USE'],
    ['with a spent token is refused', { nameTaken: false, token: spent }, '401 M_FORBIDDEN'],
    [
      'with an unknown token is refused',
      { nameTaken: false, token: { stored: undefined } },
      '401 M_FORBIDDEN',
    ],
    [
      'of a taken name with a spent token is refused for the name',
      { nameTaken: true, token: spent },
      '400 M_USER_IN_USE',
    ],
  ]
  for (const [name, facts, expected] of rows) {
    test(name, () => {
      if (expected === undefined) return requireRegistrable(facts, NOW)
      assert.throws(
        () => requireRegistrable(facts, NOW),
        (error) => error instanceof MatrixError && `${error.status} ${error.errcode}` === expected,
      )
    })
  }
})
