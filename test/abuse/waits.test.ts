/** One account whose devices take all places of waiting syncs (issue 11, C5). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DEFAULT_SIZES } from '../../packages/server/src/config/config.ts'
import { ok, send, sync, trySync, until } from '@latchkey/testing/test-client.ts'
import { countsOf, logInDevices, register, start } from './support.ts'

const DEVICES = 5
const PLACES = DEVICES * DEFAULT_SIZES.waitingSyncsPerDevice

test('a sync waits until a message comes, although devices of one account fill all places', async () => {
  await using server = await start({ waitingSyncs: PLACES })
  const { waiters } = server.context
  const victim = await register(server, 'victim', '198.51.100.1')
  const devices = await logInDevices(server, await register(server, 'attacker', '203.0.113.1'), DEVICES)
  const since = (await sync(server, victim)).next_batch
  const tokens = await Promise.all(devices.map(async (device) => (await sync(server, device)).next_batch))
  const ended: { readonly status: number }[] = []
  const polls: Promise<unknown>[] = []
  const fill = (): void => {
    for (const [n, device] of devices.entries()) {
      const query = { since: tokens[n] ?? '', timeout: '300000' }
      polls.push(trySync(server, device, query).then((answer) => ended.push(answer)))
    }
  }
  while (polls.length < PLACES) fill()
  await until(() => waiters.count === PLACES)
  const waiting = trySync(server, victim, { since, timeout: '300000' })
  await until(() => ended.length === 1)
  assert.equal(waiters.count, PLACES, 'the oldest sync of the attacker gave its place to the victim')
  fill()
  await until(() => ended.length === 1 + DEVICES)
  assert.deepEqual(countsOf(ended), { 200: 1, 503: DEVICES })
  ok(await send(server, victim, { [victim.userId]: { [victim.deviceId]: { n: 1 } } }, 'wake'))
  const { to_device } = ok(await waiting)
  assert.deepEqual(
    to_device.events.map((event: { readonly content: unknown }) => event.content),
    [{ n: 1 }],
  )
  waiters.close()
  await Promise.all(polls)
})
