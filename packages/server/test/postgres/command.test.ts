/**
 * The command over PostgreSQL: migrate, serve, and account commands during serving. Needs LATCHKEY_TEST_POSTGRES
 * (@latchkey/testing/test-schema.ts).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import pg from 'pg'
import { runLatchkey, startLatchkey, temporaryDirectory } from '@latchkey/testing/run-latchkey.ts'
import { clientOf } from '@latchkey/testing/test-server.ts'
import { openTestSchema, skipWithoutPostgres as skip } from '@latchkey/testing/test-schema.ts'

async function query(database: string, sql: string): Promise<unknown[]> {
  const url = new URL(database)
  const schema = url.searchParams.get('schema')
  url.searchParams.delete('schema')
  const client = new pg.Client({ connectionString: url.href })
  await client.connect()
  try {
    await client.query(`set search_path to ${schema}`)
    return (await client.query(sql)).rows
  } finally {
    await client.end()
  }
}

test('migrate creates the tables once, and prints the migration with --dry-run', { skip }, async () => {
  using directory = temporaryDirectory()
  const schema = await openTestSchema(directory.path)
  assert.ok(schema)
  const environment = { LATCHKEY_DATABASE: schema.database }
  const migrate = (...args: string[]): ReturnType<typeof runLatchkey> =>
    runLatchkey(['migrate', ...args], { environment })
  const dry = await migrate('--dry-run')
  assert.deepEqual([dry.code, dry.stderr], [0, ''])
  assert.match(dry.stdout, /^create table devices \(/m)
  assert.deepEqual(
    await query(schema.database, `select 1 from pg_tables where schemaname = current_schema()`),
    [],
  )
  const done = await migrate()
  assert.deepEqual([done.code, done.stderr], [0, ''])
  assert.match(done.stdout, /migrated from schema \d+ to \d+/)
  const again = await migrate()
  assert.match(again.stdout, /up to date/)
  assert.match((await migrate('--dry-run')).stdout, /up to date/)
  await schema.drop()
})

test('migrate without a PostgreSQL database names the required option', async () => {
  const { code, stderr } = await runLatchkey(['migrate'])
  assert.equal(code, 1)
  assert.match(stderr, /--database/)
})

test('serve and commands during it use the database, and none of them prints its password', {
  skip,
}, async () => {
  using directory = temporaryDirectory()
  const schema = await openTestSchema(directory.path)
  assert.ok(schema)
  const url = new URL(schema.database)
  if (url.password === '') url.password = 'hunter2'
  const environment = { LATCHKEY_DATABASE: url.href }
  const args = ['--server-name', 'test.example', '--data', directory.path]
  {
    await using server = await startLatchkey(args, { environment })
    const added = await runLatchkey(['user', 'add', 'alice', '--password-stdin'], {
      environment,
      stdin: 'correct horse',
    })
    assert.match(added.stdout, /^Created the account @alice:test\.example in postgres:.*\.\n$/, added.stderr)
    assert.ok(!(added.stdout + added.stderr).includes(url.password))
    const created = await runLatchkey(['registration-token', 'create', '--uses', '1'], { environment })
    assert.equal(created.code, 0, created.stderr)
    const client = clientOf(server.url)
    const { status, body: session } = await client.call('POST', '/_matrix/client/v3/login', {
      body: {
        type: 'm.login.password',
        identifier: { type: 'm.id.user', user: 'alice' },
        password: 'correct horse',
      },
    })
    assert.equal(status, 200)
    const token = session.access_token
    const sync = '/_matrix/client/v3/sync'
    const { body: first } = await client.call('GET', sync, { token })
    const waiting = client.call('GET', `${sync}?since=${first.next_batch}&timeout=60000`, { token })
    const locked = await runLatchkey(['user', 'lock', 'alice'], { environment })
    assert.match(locked.stdout, /^Locked @alice:test\.example in postgres:/)
    assert.equal(
      (await waiting).body.errcode,
      'M_USER_LOCKED',
      'the server notices a lock by another process',
    )
    server.child.kill('SIGTERM')
    const { code, stdout, stderr } = await server.ended
    assert.equal(code, 0)
    assert.match(stdout, /database postgres/)
    assert.ok(!(stdout + stderr).includes(url.password), stdout + stderr)
  }
  const other = await runLatchkey(['serve', '--port', '0', '--server-name', 'other.example'], { environment })
  assert.match(other.stderr, /belongs to the server name test\.example/)
  await schema.drop()
})

test('serve refuses an unknown schema and an unreachable database with one line each', {
  skip,
}, async () => {
  using directory = temporaryDirectory()
  const schema = await openTestSchema(directory.path)
  assert.ok(schema)
  const environment = { LATCHKEY_DATABASE: schema.database }
  assert.equal((await runLatchkey(['migrate'], { environment })).code, 0)
  await query(schema.database, `update meta set value = '99' where key = 'schema'`)
  for (const command of [['serve', '--port', '0'], ['migrate']]) {
    const { code, stderr } = await runLatchkey(command, { environment })
    assert.equal(code, 1)
    assert.match(stderr, /schema 99/)
    assert.equal(stderr.trimEnd().split('\n').length, 1, stderr)
  }
  await schema.drop()
  const unreachable = 'postgres://me:hunter2@127.0.0.1:1/latchkey'
  const { code, stderr } = await runLatchkey(['serve', '--port', '0'], {
    environment: { LATCHKEY_DATABASE: unreachable },
  })
  assert.equal(code, 1)
  assert.equal(stderr.trimEnd().split('\n').length, 1, stderr)
  assert.ok(!stderr.includes('hunter2'), stderr)
})
