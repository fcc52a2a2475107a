import { errorOf } from '@latchkey/testing/pool-facts.ts'
import assert from 'node:assert/strict'
import test from 'node:test'
import type { Session } from '../session.ts'
import { hashToken } from './access-token.ts'
import type { Refresh } from './port.ts'
import { hasExpired, newTokens, refreshSession } from './refresh-tokens.ts'

const NOW = 1_700_000_000_000
const LIFETIME = 60_000
const RULES = { now: () => NOW, config: { accessTokenLifetimeMs: LIFETIME } }

test('a token that does not expire has no refresh token', () => {
  const { tokens, stored } = newTokens({ now: RULES.now, config: {} }, true)
  assert.deepEqual(Object.keys(tokens), ['accessToken'])
  assert.deepEqual(stored, { tokenHash: hashToken(tokens.accessToken) })
})

test('a client that does not ask for a refresh token gets a token that expires, and no other', () => {
  const { tokens, stored } = newTokens(RULES, false)
  assert.deepEqual(tokens, { accessToken: tokens.accessToken, expiresInMs: LIFETIME })
  assert.deepEqual(stored, { tokenHash: hashToken(tokens.accessToken), expiresTs: NOW + LIFETIME })
})

test('a refresh stores hashes of the pair that it returns', async () => {
  const seen: Refresh[] = []
  const accounts = {
    refresh: async (refresh: Refresh): Promise<Session> => {
      seen.push(refresh)
      return {} as Session
    },
  }
  const { accessToken, refreshToken = '', expiresInMs } = await refreshSession({ ...RULES, accounts }, 'old')
  assert.equal(expiresInMs, LIFETIME)
  const next = {
    tokenHash: hashToken(accessToken),
    expiresTs: NOW + LIFETIME,
    refreshHash: hashToken(refreshToken),
  }
  assert.deepEqual(seen, [{ refreshHash: hashToken('old'), next, now: NOW }])
})

test('a refresh token that is not known is 401', async () => {
  const accounts = { refresh: async (): Promise<undefined> => undefined }
  const error = await refreshSession({ ...RULES, accounts }, 'old').catch((refusal: unknown) => refusal)
  assert.equal(errorOf(error), '401 M_UNKNOWN_TOKEN')
})

test('a token expires at its time, and one without a time never', () => {
  const at = (expiresTs?: number): boolean => hasExpired({ expiresTs } as Session, NOW)
  assert.deepEqual([at(NOW - 1), at(NOW), at(NOW + 1), at()], [true, true, false, false])
})
