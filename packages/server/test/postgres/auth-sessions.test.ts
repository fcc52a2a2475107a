/**
 * Sessions of user-interactive authentication next to other transactions. A session of the test holds the locks at
 * which the concurrent ones would meet only by chance.
 */
import assert from 'node:assert/strict'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import pg from 'pg'
import { startTestServer } from '@latchkey/testing/test-server.ts'
import { openTestSchema, type TestSchema } from '@latchkey/testing/test-schema.ts'
import { within } from '@latchkey/testing/within.ts'
import { hashAuthSessionId, sealAnswer } from '../../src/accounts/auth-session.ts'

const V3 = '/_matrix/client/v3'
const skip = (process.env['LATCHKEY_TEST_POSTGRES'] ?? '') === '' && 'LATCHKEY_TEST_POSTGRES is not set'

async function connectTo(schema: TestSchema): Promise<pg.Client> {
  const url = new URL(schema.database)
  const name = url.searchParams.get('schema') ?? ''
  url.searchParams.delete('schema')
  const client = new pg.Client({ connectionString: url.href, options: `-c search_path=${name}` })
  await client.connect()
  return client
}

/** Resolves when another session waits for a lock that this session holds. */
async function isBlocking(session: pg.Client): Promise<void> {
  for (;;) {
    const { rowCount } = await session.query(
      `select 1 from pg_locks where not granted and pg_backend_pid() = any (pg_blocking_pids(pid))`,
    )
    if (rowCount !== null && rowCount > 0) return
  }
}

test('a request refused for what another one has done gets the answer of that one', { skip }, async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'latchkey-auth-'))
  const schema = await openTestSchema(dataDir)
  assert.ok(schema)
  const server = await startTestServer({ dataDir })
  const other = await connectTo(schema)
  try {
    const body = { username: 'raced', password: 'password' }
    const { session } = (await server.call('POST', `${V3}/register`, { body })).body
    await other.query('begin')
    await other.query('lock table users in access exclusive mode')
    const auth = { type: 'm.login.dummy', session }
    const late = server.call('POST', `${V3}/register`, { body: { ...body, auth } })
    // Its session is open still; it waits to see whether the name is free.
    await isBlocking(other)
    const answer = { user_id: '@raced:test.example' }
    await other.query(`insert into users (user_id, password_hash, created_ts) values ($1, '', 0)`, [
      answer.user_id,
    ])
    await other.query(`update auth_sessions set is_finished = true, sealed = $1 where id_hash = $2`, [
      sealAnswer(session, body, answer),
      hashAuthSessionId(session),
    ])
    await other.query('commit')
    assert.deepEqual(await within('the answer', late), { status: 200, body: answer })
    const taken = await server.call('POST', `${V3}/register`, { body })
    assert.equal(taken.body.errcode, 'M_USER_IN_USE')
  } finally {
    await other.end()
    await server[Symbol.asyncDispose]()
    await schema.drop()
  }
})

test('a deactivation does not wait for an operation that waits for its user', { skip }, async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'latchkey-auth-'))
  const schema = await openTestSchema(dataDir)
  assert.ok(schema)
  const server = await startTestServer({ dataDir })
  const other = await connectTo(schema)
  try {
    const { token } = await server.login('alice', 'PHONE')
    const { accounts } = server.context.store
    const account = await accounts.find('@alice:test.example' as never)
    assert.ok(account)
    for (const devices of [['A'], ['B']])
      await server.call('POST', `${V3}/delete_devices`, { token, body: { devices } })
    await other.query('begin')
    const { rowCount } = await other.query(
      'select 1 from auth_sessions order by session_num limit 1 for update',
    )
    assert.equal(rowCount, 1)
    await within('the deactivation', accounts.deactivate({ userRef: account.userRef, now: Date.now() }), 5000)
    await other.query('rollback')
    const left = await other.query('select 1 from auth_sessions')
    assert.equal(left.rowCount, 1)
  } finally {
    await other.end()
    await server[Symbol.asyncDispose]()
    await schema.drop()
  }
})
