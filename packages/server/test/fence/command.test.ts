/**
 * `latchkey fence` over HTTP and on the command line: a backup restored next to a server's witness, in both stores. The
 * PostgreSQL half needs LATCHKEY_TEST_POSTGRES (@latchkey/testing/test-schema.ts).
 */
import assert from 'node:assert/strict'
import { cpSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { runLatchkey, startLatchkey, temporaryDirectory } from '@latchkey/testing/run-latchkey.ts'
import { clientOf, type TestClient, type TestDevice } from '@latchkey/testing/test-server.ts'
import { openTestSchema, skipWithoutPostgres as skip } from '@latchkey/testing/test-schema.ts'

const FLAGS = ['--registration', 'open', '--limits', 'off']
const SYNC = '/_matrix/client/v3/sync'

/** Runs `use` with a server in its own process, and returns its complete log after its end. */
async function withServer<T>(
  args: readonly string[],
  environment: Record<string, string>,
  use: (client: TestClient) => Promise<T>,
): Promise<{ readonly result: T; readonly log: string }> {
  await using server = await startLatchkey([...FLAGS, ...args], { environment })
  const result = await use(clientOf(server.url))
  server.child.kill('SIGTERM')
  const { stdout, stderr } = await server.ended
  return { result, log: stdout + stderr }
}

async function upload(client: TestClient, { token }: TestDevice, from: number): Promise<void> {
  const keys = Array.from({ length: 10 }, (_, n) => [
    `signed_curve25519:K${String(from + n).padStart(3, '0')}`,
    {
      key: Buffer.alloc(32, from + n)
        .toString('base64')
        .replaceAll('=', ''),
      signatures: {},
    },
  ])
  const { status } = await client.call('POST', '/_matrix/client/v3/keys/upload', {
    token,
    body: { one_time_keys: Object.fromEntries(keys) },
  })
  assert.equal(status, 200)
}

async function claim(client: TestClient, of: TestDevice, by: TestDevice): Promise<string | undefined> {
  const { body } = await client.call('POST', '/_matrix/client/v3/keys/claim', {
    token: by.token,
    body: { one_time_keys: { [of.userId]: { [of.deviceId]: 'signed_curve25519' } } },
  })
  return Object.keys(body.one_time_keys[of.userId]?.[of.deviceId] ?? {})[0]
}

test('a restored database file raises the fence of its server, status reports why, and adopt prevents it', async () => {
  using directory = temporaryDirectory()
  using backup = temporaryDirectory()
  const data = ['--data', directory.path]
  const fence = (...args: string[]): ReturnType<typeof runLatchkey> =>
    runLatchkey(['fence', ...args, ...data])
  const putBack = (): void => {
    for (const name of readdirSync(directory.path).filter((file) => file.startsWith('latchkey.db')))
      rmSync(join(directory.path, name))
    cpSync(join(backup.path, 'latchkey.db'), join(directory.path, 'latchkey.db'))
  }

  const before = await withServer(data, {}, async (client) => {
    const devices = [await client.login('alice'), await client.login('bob')] as const
    await upload(client, devices[0], 0)
    return devices
  })
  const [alice, bob] = before.result
  cpSync(join(directory.path, 'latchkey.db'), join(backup.path, 'latchkey.db'))
  const lost = await withServer(data, {}, async (client) => [
    await claim(client, alice, bob),
    await claim(client, alice, bob),
  ])
  assert.deepEqual(lost.result, ['signed_curve25519:K000', 'signed_curve25519:K001'])
  assert.match((await fence('status')).stdout, /never raised[^]*has all acknowledged writes/)

  putBack()
  const behind = await fence('status')
  assert.equal(behind.code, 1)
  assert.match(
    behind.stdout,
    /the database was rolled back: write \d+ was acknowledged, the database has \d+/,
  )
  const after = await withServer(data, {}, async (client) => {
    const none = await claim(client, alice, bob)
    const synced = await client.call('GET', SYNC, { token: alice.token })
    await upload(client, alice, 10)
    return [none, synced.body.device_one_time_keys_count.signed_curve25519, await claim(client, alice, bob)]
  })
  assert.deepEqual(after.result, [undefined, 0, 'signed_curve25519:K010'])
  assert.match(after.log, /FENCE RAISED/)
  assert.match(
    (await fence('status')).stdout,
    /was raised once[^]*ended at \d+: this process acknowledged write/,
  )

  putBack()
  const adopted = await fence('adopt')
  assert.match(adopted.stdout, /is set to the state of the database/)
  const trusted = await withServer(data, {}, (client) => claim(client, alice, bob))
  assert.equal(trusted.result, 'signed_curve25519:K000', 'the operator said that nothing was lost')
  assert.doesNotMatch(trusted.log, /FENCE RAISED/)
})

test('commands refuse an embedded database that a server has open', async () => {
  using directory = temporaryDirectory()
  const data = ['--data', directory.path]
  await using server = await startLatchkey([...FLAGS, ...data])
  assert.ok(server.url)
  for (const command of ['status', 'raise', 'adopt']) {
    const { code, stderr } = await runLatchkey(['fence', command, ...data])
    assert.equal(code, 1)
    assert.match(stderr, /Another Latchkey process is using/)
  }
})

test('an unknown device, and half a device name, are refused with a clear error', async () => {
  using directory = temporaryDirectory()
  const data = ['--data', directory.path]
  const raise = (...args: string[]): ReturnType<typeof runLatchkey> =>
    runLatchkey(['fence', 'raise', ...args, ...data])
  assert.match((await raise()).stderr, /There is no database in/)
  await withServer(data, {}, async () => {})
  assert.match((await raise('--user', '@alice:localhost')).stderr, /both --user and --device/)
  assert.match((await raise('--user', 'alice', '--device', 'A')).stderr, /expected @name:server/)
  assert.match((await raise('--user', '@alice:localhost', '--device', 'A')).stderr, /has no device A/)
})

test('over PostgreSQL a raise next to a running server, for all devices or for one, wakes the waiting syncs', {
  skip,
}, async () => {
  using directory = temporaryDirectory()
  const schema = await openTestSchema(directory.path)
  assert.ok(schema)
  const environment = { LATCHKEY_DATABASE: schema.database }
  const data = ['--data', directory.path]
  const fence = (...args: string[]): ReturnType<typeof runLatchkey> =>
    runLatchkey(['fence', ...args, ...data], { environment })
  const { log } = await withServer(data, environment, async (client) => {
    const [alice, bob] = [await client.login('alice'), await client.login('bob')]
    for (const [from, args] of [
      [0, []],
      [10, ['--user', alice.userId, '--device', alice.deviceId]],
    ] as const) {
      await upload(client, alice, from)
      const { body: first } = await client.call('GET', SYNC, { token: alice.token })
      const waiting = client.call('GET', `${SYNC}?timeout=30000&since=${first.next_batch}`, {
        token: alice.token,
      })
      const raised = await fence('raise', ...args)
      assert.deepEqual([raised.code, raised.stderr], [0, ''])
      const { body } = await waiting
      assert.equal(body.device_one_time_keys_count.signed_curve25519, 0)
      assert.equal(await claim(client, alice, bob), undefined)
    }
    const { stdout } = await fence('status')
    assert.match(stdout, /was raised once[^]*raised by command[^]*has all acknowledged writes/)
    // The server has the witness open.
    const adopt = await fence('adopt')
    assert.equal(adopt.code, 1)
    assert.match(adopt.stdout, /in use by a server/)
  })
  assert.match(log, /raised by another process or by command/)
  await schema.drop()
})
