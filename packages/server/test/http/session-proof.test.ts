/**
 * A session is looked up before the body is read (admission) and proved in the transaction, where it counts. Here the
 * session ends between the two: endpoints that leave the proof to the store must refuse it.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'
import { hashToken } from '../../src/accounts/access-token.ts'
import { clientApi } from '../../src/http/client-api/index.ts'
import { VALID_REQUESTS } from '../support/valid-bodies.ts'

describe('a session that ended after its look-up', () => {
  let server: TestServer
  before(async () => {
    server = await startTestServer()
  })
  after(() => server[Symbol.asyncDispose]())

  test('is refused by every endpoint whose store proves it', async () => {
    const { accounts } = server.context.store
    const lookUp = accounts.session.bind(accounts)
    const proved = clientApi(server.context.config).filter(
      (endpoint) => endpoint.sessionProvedByStore === true,
    )
    assert.ok(proved.length >= 7)
    for (const [n, { method, path }] of proved.entries()) {
      const device = await server.login(`user${n}`)
      const session = await lookUp(hashToken(device.token))
      await server.call('POST', '/_matrix/client/v3/logout', { token: device.token, body: {} })
      Object.assign(accounts, {
        session: async (hash: string) => (hash === session?.tokenHash ? session : undefined),
      })
      try {
        const { path: own = path, body = {} } = VALID_REQUESTS.get(`${method} ${path}`)?.(device) ?? {}
        const url = own.startsWith('/_matrix/') ? own : `/_matrix/client/v3${own}`
        const reply = await server.call(method, url, { token: device.token, body })
        assert.deepEqual([reply.status, reply.body.errcode], [401, 'M_UNKNOWN_TOKEN'], `${method} ${path}`)
      } finally {
        Object.assign(accounts, { session: lookUp })
      }
    }
  })
})
