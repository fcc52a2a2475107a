/** /health/live and /health/ready: public, without a token, and correct while the database is unreachable. */
import assert from 'node:assert/strict'
import test, { after } from 'node:test'
import { startTestServer } from '@latchkey/testing/test-server.ts'

const server = await startTestServer()
after(() => server[Symbol.asyncDispose]())

test('a running server is live and ready, without a token', async () => {
  assert.deepEqual(await server.call('GET', '/health/live'), { status: 200, body: { status: 'live' } })
  assert.deepEqual(await server.call('GET', '/health/ready'), { status: 200, body: { status: 'ready' } })
  assert.equal((await server.call('POST', '/health/ready')).status, 405)
  assert.equal((await server.call('GET', '/health')).status, 404)
})

test('a server without its database is live but not ready', async () => {
  await using lost = await startTestServer()
  await lost.context.store.close()
  assert.equal((await lost.call('GET', '/health/live')).status, 200)
  const { status, body } = await lost.call('GET', '/health/ready')
  assert.equal(status, 503)
  assert.equal(body.error, 'The database does not answer.')
})
