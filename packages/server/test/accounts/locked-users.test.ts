/** Locked users (accounts/locked-users.ts) over HTTP; the operator's commands run in the server, as from its socket. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runAdminCommand } from '../../src/admin/commands.ts'
import {
  claimNames,
  CLIENT,
  fallback,
  ids,
  keys,
  longPoll,
  named,
  send,
  sync,
  upload,
} from '@latchkey/testing/test-client.ts'
import { type AnyJson, startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'

async function admin({ context }: TestServer, command: string, input: object): Promise<AnyJson> {
  const { store, passwords, serverName, now, config } = context
  const { passwordMinLength } = config
  const { accounts, devices, admin: operator } = store
  const deps = { accounts, devices, admin: operator, passwords, serverName, passwordMinLength, now }
  return (await runAdminCommand(deps, command, input)).output
}

const PASSWORD = {
  type: 'm.login.password',
  identifier: { type: 'm.id.user', user: 'alice' },
  password: 'password',
}

test('a locked user gets M_USER_LOCKED with soft_logout, also in a waiting sync; others do not notice', async () => {
  await using server = await startTestServer()
  const [alice, bob] = [await server.login('alice', 'A'), await server.login('bob', 'B')]
  await upload(server, alice, { one_time_keys: keys(ids(2)), fallback_keys: fallback('F') })
  const { next_batch: since } = await sync(server, alice)
  const { answer: waiting } = await longPoll(server, alice, since)
  assert.deepEqual(await admin(server, 'user lock', { name: 'alice' }), {
    userId: alice.userId,
    changed: true,
  })
  const ended = await waiting
  const refusal = ({ status, body }: { status: number; body: AnyJson }): unknown[] => [
    status,
    body.errcode,
    body.soft_logout,
  ]
  const LOCKED = [401, 'M_USER_LOCKED', true]
  assert.deepEqual(refusal(ended), LOCKED)
  for (const [method, path, body] of [
    ['GET', '/sync', undefined],
    ['POST', '/keys/upload', {}],
    ['PUT', '/sendToDevice/m.test/1', { messages: {} }],
    ['GET', '/devices', undefined],
  ] as const)
    assert.deepEqual(
      refusal(await server.call(method, CLIENT + path, { token: alice.token, body })),
      LOCKED,
      path,
    )
  assert.deepEqual(refusal(await server.call('POST', `${CLIENT}/login`, { body: PASSWORD })), [
    403,
    'M_USER_LOCKED',
    true,
  ])
  const unknown = await server.call('GET', `${CLIENT}/devices`, { token: 'lk_nonsense' })
  assert.deepEqual(refusal(unknown), [401, 'M_UNKNOWN_TOKEN', false])

  assert.deepEqual(await claimNames(server, bob, alice, 1), ids(1).map(named))
  assert.equal((await send(server, bob, { [alice.userId]: { A: {} } }, '1')).status, 200)
  await admin(server, 'user unlock', { name: 'alice' })
  const answer = await sync(server, alice, { since })
  assert.equal(answer.to_device.events.length, 1, 'the message waited')
})

test('a locked user can log out, and only that', async () => {
  await using server = await startTestServer()
  const alice = await server.login('alice', 'A')
  await admin(server, 'user lock', { name: 'alice' })
  assert.equal((await server.call('POST', `${CLIENT}/logout`, { token: alice.token })).status, 200)
  await admin(server, 'user unlock', { name: 'alice' })
  const { body } = await server.call('GET', `${CLIENT}/devices`, { token: alice.token })
  assert.equal(body.errcode, 'M_UNKNOWN_TOKEN')
})

test('commands end sessions at once, can be repeated, and suggest a similar name', async () => {
  await using server = await startTestServer()
  const alice = await server.login('alice', 'A')
  const whoami = async (): Promise<number> =>
    (await server.call('GET', `${CLIENT}/account/whoami`, { token: alice.token })).status
  assert.equal(await whoami(), 200)
  const input = { name: 'alice', deviceIds: ['A', 'A', 'NONE'] }
  assert.deepEqual(await admin(server, 'device delete', input), {
    userId: alice.userId,
    removed: ['A'],
    unknown: ['NONE'],
  })
  assert.equal(await whoami(), 401)
  assert.deepEqual((await admin(server, 'device delete', input)).removed, [])
  const again = await server.call('POST', `${CLIENT}/login`, { body: PASSWORD })
  assert.equal(again.status, 200)
  const reset = { name: '@alice:test.example', password: 'correct horse', keepSessions: false }
  assert.equal((await admin(server, 'user reset-password', reset)).removedDevices, 1)
  assert.equal((await server.call('POST', `${CLIENT}/login`, { body: PASSWORD })).status, 403)
  assert.equal((await admin(server, 'session revoke', { name: 'alice' })).removedDevices, 0)
  await assert.rejects(admin(server, 'user lock', { name: 'alcie' }), /no user "alcie".*Did you mean alice\?/)
  await assert.rejects(admin(server, 'user lock', { name: '@alice:other.org' }), /user of this server/)
  assert.equal((await admin(server, 'user deactivate', { name: 'alice' })).changed, true)
  assert.equal((await admin(server, 'user deactivate', { name: 'alice' })).changed, false)
  assert.equal((await admin(server, 'user show', { name: 'alice' })).state, 'deactivated')
  await assert.rejects(admin(server, 'user reset-password', reset), /is deactivated/)
  const { users, next } = await admin(server, 'user list', { after: '', limit: 1 })
  assert.deepEqual([users.length, next], [1, alice.userId])
  assert.equal((await admin(server, 'user list', { after: next, limit: 1 })).next, null)
})
