/**
 * One server for a whole test file, a new user for each test that needs one, and Bob, who interacts with all of them.
 */
import { after } from 'node:test'
import { startTestServer, type TestDevice, type TestServer } from '@latchkey/testing/test-server.ts'

export async function sharedServer(): Promise<{
  readonly server: TestServer
  readonly bob: TestDevice
  /** A new user with one device. */
  readonly newDevice: () => Promise<TestDevice>
  /** The same user logged in with another device, or with the same one again. */
  readonly loginAgain: (device: TestDevice, deviceId: string) => Promise<TestDevice>
}> {
  const server = await startTestServer()
  after(() => server[Symbol.asyncDispose]())
  let users = 0
  return {
    server,
    bob: await server.login('bob', 'BOB'),
    newDevice: () => server.login(`user${++users}`, `DEV${users}`),
    loginAgain: ({ userId }, deviceId) => server.login(userId.slice(1, userId.indexOf(':')), deviceId),
  }
}
