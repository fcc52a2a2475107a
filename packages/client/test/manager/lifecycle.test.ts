/** The key manager's normal operation, with a real server, real libolm and real OlmMachine senders. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'
import { OlmDevice } from '@latchkey/testing/olm-device.ts'
import { ManagerDevice } from '../support/manager/device.ts'

let server: TestServer
before(async () => {
  server = await startTestServer()
})
after(async () => {
  await server[Symbol.asyncDispose]()
})

let users = 0
/** A separate user for each test. */
function nextUser(): string {
  return `user${++users}`
}

test('a new device publishes its identity, half of the keys it can hold, and a fallback key', async () => {
  const bob = await ManagerDevice.ready(server.url, { user: nextUser(), deviceId: 'BOB' })
  assert.equal(await bob.assertSubset(), 50)
  assert.equal(bob.uploads.length, 1)
  const audit = await bob.audit()
  assert.equal(audit.oneTimeKeys.length, 50)
  assert.equal(audit.fallbackKeys.length, 1)
  assert.deepEqual(await bob.manager.outgoingRequests(), [])
})

test('messages of an unmodified OlmMachine are decrypted, on one-time keys and on the fallback key', async () => {
  const bob = await ManagerDevice.ready(server.url, { user: nextUser(), deviceId: 'BOB' })
  using alice = await OlmDevice.ready(server.url, { user: nextUser(), deviceId: 'ALICE' })
  await alice.write(bob, 'first')
  await alice.write(bob, 'second')
  await bob.catchUp()
  assert.deepEqual(bob.texts(), ['first', 'second'])
  assert.equal(await bob.assertSubset(), 50)
  assert.equal((await bob.audit()).oneTimeKeys.length, 50, 'the used key is removed')
})
