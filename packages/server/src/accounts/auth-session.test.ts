import assert from 'node:assert/strict'
import test from 'node:test'
import {
  AUTH_SESSION_MS,
  beginAuthSession,
  hashBody,
  isOperation,
  newAuthSessionId,
  sealAnswer,
  unseal,
} from './auth-session.ts'

const NETWORK = { kind: 'network', name: '192.0.2.1' } as const
const BODY = { username: 'alice', password: 'correct horse', auth: { type: 'm.login.dummy' } }

test('a session remembers its body without auth, readable with its ID alone', () => {
  const id = newAuthSessionId()
  const stored = beginAuthSession(id, { owner: NETWORK, operation: 'POST /register', body: BODY, now: 1 })
  assert.deepEqual(unseal(id, stored.sealed), { body: { username: 'alice', password: 'correct horse' } })
  assert.throws(() => unseal(newAuthSessionId(), stored.sealed))
  const text = Buffer.from(stored.sealed).toString('latin1')
  for (const secret of ['correct horse', 'alice', id]) assert.equal(text.includes(secret), false)
  assert.equal(JSON.stringify(stored).includes(id), false)
})

test('a finished session has its answer, and of the body only a hash that knows no order of members', () => {
  const id = newAuthSessionId()
  const { body, done } = unseal(id, sealAnswer(id, BODY, { access_token: 'secret' }))
  assert.equal(body, undefined)
  assert.deepEqual(done?.answer, { access_token: 'secret' })
  assert.equal(done.bodyHash, hashBody({ password: 'correct horse', username: 'alice' }))
  assert.notEqual(done.bodyHash, hashBody({ password: 'correct horse', username: 'bob' }))
})

test('a body too large to remember is left out, sooner without an account', () => {
  const body = { devices: 'x'.repeat(5000) }
  const id = newAuthSessionId()
  const begin = (kind: 'user' | 'network'): object =>
    unseal(id, beginAuthSession(id, { owner: { kind, name: '1' }, operation: '', body, now: 1 }).sealed)
  assert.deepEqual(begin('network'), {})
  assert.deepEqual(begin('user'), { body })
})

test('a session belongs to one operation and lives for 15 minutes', () => {
  const session = beginAuthSession('id', { owner: NETWORK, operation: 'POST /register', body: {}, now: 7 })
  assert.equal(session.expiresTs - 7, AUTH_SESSION_MS)
  assert.equal(isOperation(session, 'POST /register'), true)
  assert.equal(isOperation(session, 'POST /account/password'), false)
})
