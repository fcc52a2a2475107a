/** Entries about attacks and faults: draining claimers and rolled-back clients, by name, not one per request. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { startLatchkey, temporaryDirectory } from '@latchkey/testing/run-latchkey.ts'
import { claimNames, fallback, ids, keys, named, upload } from '@latchkey/testing/test-client.ts'
import { clientOf } from '@latchkey/testing/test-server.ts'

test('a drained device and reused key IDs are logged once, with the users and devices involved', async () => {
  using directory = temporaryDirectory()
  const environment = { LATCHKEY_RATES_CLAIM_PER_TARGET_BURST: '2', LATCHKEY_SECURITY_LOG: 'on' }
  const args = ['--data', directory.path, '--registration', 'open', '--server-name', 'test.example']
  await using latchkey = await startLatchkey(args, { environment })
  const client = clientOf(latchkey.url)
  const [alice, eve] = [await client.login('alice', 'A'), await client.login('eve', 'E')]
  await upload(client, alice, { one_time_keys: keys(ids(5)), fallback_keys: fallback('F') })
  assert.deepEqual(await claimNames(client, eve, alice, 6), [...ids(2), 'F', 'F', 'F', 'F'].map(named))
  const again = await upload(client, alice, { one_time_keys: keys(ids(2), 'other') })
  assert.deepEqual(Object.values(again['dev.latchkey.outcomes']), ['id_reused', 'id_reused'])
  latchkey.child.kill('SIGTERM')
  const { stderr } = await latchkey.ended
  const lines = stderr
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
    .filter(({ event }) => !['account_registered', 'login'].includes(event))
  const common = { userId: eve.userId, deviceId: 'E' }
  const reused = { userId: alice.userId, deviceId: 'A' }
  assert.deepEqual(
    lines.map(({ level, userId, deviceId, targetUserId, count, keys: reusedKeys }) => ({
      level,
      userId,
      deviceId,
      targetUserId,
      count,
      keys: reusedKeys,
    })),
    [
      { level: 30, ...common, targetUserId: alice.userId, count: 1, keys: undefined },
      { level: 40, ...reused, targetUserId: undefined, count: 2, keys: ids(2).map(named) },
    ],
  )
  assert.ok(lines.every(({ requestId, address }) => requestId !== undefined && address === '127.0.0.1'))
})
