/** The commands for users, devices and tokens, as an operator types them. Rules: accounts/locked-users.test.ts. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { printable, table } from '../../src/cli/output.ts'
import { type Ended, runLatchkey, startLatchkey, temporaryDirectory } from '@latchkey/testing/run-latchkey.ts'
import { CLIENT } from '@latchkey/testing/test-client.ts'
import { clientOf } from '@latchkey/testing/test-server.ts'

test('an operator finds, locks and unlocks a user of a running server', async () => {
  using directory = temporaryDirectory()
  const data = ['--data', directory.path]
  const run = (...args: readonly string[]): Promise<Ended> => runLatchkey([...args, ...data])
  await using server = await startLatchkey([
    ...data,
    '--registration',
    'open',
    '--server-name',
    'test.example',
  ])
  const client = clientOf(server.url)
  const alice = await client.login('alice', 'PHONE')
  const status = async (): Promise<number> =>
    (await client.call('GET', `${CLIENT}/devices`, { token: alice.token })).status
  const listed = await run('user', 'list')
  assert.deepEqual([listed.code, listed.stderr], [0, ''])
  assert.match(
    listed.stdout,
    /^CREATED {11}STATE {3}DEVICES {2}USER\n\d{4}-\d\d-\d\d \d\d:\d\d {2}active {2}1 {8}@alice:test\.example\n$/,
  )
  assert.equal(await status(), 200)
  const locked = await run('user', 'lock', 'alice')
  assert.deepEqual(
    [locked.code, locked.stdout, locked.stderr],
    [0, `Locked @alice:test.example in ${directory.path}.\n`, ''],
  )
  assert.equal(await status(), 401)
  const shown = JSON.parse((await run('user', 'show', 'alice', '--json')).stdout)
  assert.deepEqual([shown.state, shown.devices[0].deviceId], ['locked', 'PHONE'])
  assert.equal((await run('user', 'unlock', 'alice')).code, 0)
  assert.equal(await status(), 200)
})

test('an operator ends devices and tokens, and mistakes are reported in one line', async () => {
  using directory = temporaryDirectory()
  const data = ['--data', directory.path]
  const run = (...args: readonly string[]): Promise<Ended> => runLatchkey([...args, ...data])
  await using server = await startLatchkey([
    ...data,
    '--registration',
    'open',
    '--server-name',
    'test.example',
  ])
  await clientOf(server.url).login('alice', 'PHONE')
  const devices = await run('device', 'list', 'alice')
  assert.match(devices.stdout, /^LAST SEEN .*\n\d{4}.* 127\.0\.0\.1 {2}PHONE/)
  assert.equal(
    (await run('device', 'delete', 'alice', 'PHONE', 'NONE')).stdout,
    `Removed 1 device of @alice:test.example in ${directory.path}.\n@alice:test.example has no device NONE.\n`,
  )
  const unknown = await run('user', 'show', 'alcie')
  assert.deepEqual([unknown.code, unknown.stdout], [1, ''])
  assert.equal(unknown.stderr, 'There is no user "alcie" on this server. Did you mean alice?\n')
  const unconfirmed = await run('user', 'deactivate', 'alice')
  assert.equal(unconfirmed.code, 1)
  assert.match(unconfirmed.stderr, /--yes/)
  const { token, id } = JSON.parse((await run('registration-token', 'create', '--json')).stdout)
  assert.ok(!token.includes(id))
  assert.match((await run('registration-token', 'list')).stdout, new RegExp(`\n${id} .* usable\n`))
  assert.match((await run('registration-token', 'revoke', id)).stdout, /^Revoked 1 token /)
})

test('a table fits 80 columns, and text of clients cannot rewrite the terminal', () => {
  const rows = [['2026-11-29 20:45', 'PHONE', 'n'.repeat(200)]]
  for (const line of table(['LAST SEEN', 'DEVICE', 'NAME'], rows, 'cut').trimEnd().split('\n'))
    assert.ok(line.length <= 80, line)
  assert.equal(printable('a\u001B[2Jb\u202Ec\nd'), 'a?[2Jb?c?d')
})
