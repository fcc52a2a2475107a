/** A user who renames a device again and again, in front of many who track it (issue 11, C2). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CLIENT, ok, send, sync, trySync, until } from '@latchkey/testing/test-client.ts'
import { around, countsOf, register, start } from './support.ts'

/** More than one change wakes at once (sync/waiters.ts). */
const OBSERVERS = 25

test('renames wake each observer once, and a message wakes its receiver before that', async ({ mock }) => {
  await using server = await start()
  const { waiters } = server.context
  const attacker = await register(server, 'attacker', '203.0.113.1')
  const observers = []
  for (let n = 0; n < OBSERVERS; n++) {
    const device = await register(server, `observer${n}`, `198.51.100.${n}`)
    const { token } = device
    const body = { device_keys: { [attacker.userId]: [] } }
    ok(await server.call('POST', `${CLIENT}/keys/query`, { token, body }))
    observers.push({ device, since: (await sync(server, device)).next_batch })
  }
  const [victim, honest] = observers
  assert.ok(victim && honest)

  // Holds the wake-ups that the server spreads over time, so that the test decides when they come.
  const spread: (() => void)[] = []
  around(waiters, 'wakeUsers', (wakeUsers) => {
    const timers = mock.method(globalThis, 'setTimeout', (wake: () => void) => {
      spread.push(wake)
      return { unref: () => ({}) }
    })
    wakeUsers()
    timers.mock.restore()
  })
  const answered: number[] = []
  const polls = observers.map(async ({ device, since }, n) => {
    const answer = ok(await trySync(server, device, { since, timeout: '300000' }))
    answered.push(n)
    return answer
  })
  await until(() => waiters.count === OBSERVERS)

  const renames = []
  for (let n = 0; n < 100; n++) {
    const path = `${CLIENT}/devices/${attacker.deviceId}`
    renames.push(await server.call('PUT', path, { token: attacker.token, body: { display_name: `${n}` } }))
  }
  const { 200: done = 0, 429: refused = 0 } = countsOf(renames)
  assert.ok(done >= 20 && refused > 0, `${done} renames, ${refused} refused`)
  await until(() => spread.length === OBSERVERS)
  assert.deepEqual(answered, [])

  const key = { [victim.device.userId]: { [victim.device.deviceId]: { key: 1 } } }
  ok(await send(server, honest.device, key, 'key'))
  assert.equal((await polls[0])?.to_device.events[0].content.key, 1)
  assert.deepEqual(answered, [0])

  for (const wake of spread) wake()
  const answers = await Promise.all(polls)
  assert.equal(spread.length, OBSERVERS, 'one wake-up of each observer for all renames')
  for (const [n, { device_lists, next_batch }] of answers.entries()) {
    assert.deepEqual(device_lists.changed, [attacker.userId])
    const device = observers[n]?.device ?? assert.fail()
    const after = await sync(server, device, { since: next_batch, timeout: '0' })
    assert.equal(after.device_lists?.changed, undefined)
  }
})
