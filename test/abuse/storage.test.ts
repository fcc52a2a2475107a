/** One account that stores keys through many devices (issue 11, C4): the budget of a day belongs to the account. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DEFAULT_POOL_POLICY } from '../../packages/server/src/pool/policy.ts'
import { ids, keys, refused, tryUpload, upload } from '@latchkey/testing/test-client.ts'
import type { AnyJson } from '@latchkey/testing/test-server.ts'
import { eventsOf, logInDevices, metric, register, start } from './support.ts'

const DEVICES = 20
const { keysPerRequest, keysPerUserAndDay } = DEFAULT_POOL_POLICY
const ROUNDS = keysPerUserAndDay / keysPerRequest / DEVICES
const VICTIM_KEYS = 50

test('20 devices of an account store no more keys than the account may in a day, and a victim stores theirs', async () => {
  await using server = await start()
  const victim = await register(server, 'victim', '198.51.100.1')
  const devices = await logInDevices(server, await register(server, 'attacker', '203.0.113.1'), DEVICES)
  const fill = (device: (typeof devices)[number], round: number): Promise<AnyJson> =>
    tryUpload(server, device, { one_time_keys: keys(ids(keysPerRequest, round * keysPerRequest)) })
  for (let round = 0; round < ROUNDS; round++) {
    for (const device of devices) assert.equal((await fill(device, round)).status, 200)
    await upload(server, victim, { one_time_keys: keys(ids(VICTIM_KEYS, round * VICTIM_KEYS)) })
  }
  const over = devices.slice(0, 8)
  for (const device of over) {
    const text = refused(await fill(device, ROUNDS), 429, 'M_LIMIT_EXCEEDED')
    assert.match(text, /The devices of this account may store 20000 keys within 24 hours/)
  }
  await upload(server, victim, { one_time_keys: keys(ids(VICTIM_KEYS, ROUNDS * VICTIM_KEYS)) })
  const stored = await metric(server, 'uploaded_keys_total{kind="one_time_key",outcome="stored"}')
  assert.equal(stored, keysPerUserAndDay + (ROUNDS + 1) * VICTIM_KEYS)
  assert.equal(await eventsOf(server, 'request_limited'), over.length)
})
