/** The client address that a request counts for, observed through the limit of logins per address. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DEFAULT_RATES, type TrustedProxies } from '../../src/config/config.ts'
import { CLIENT } from '@latchkey/testing/test-client.ts'
import { startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'
import { proxyWarning } from '../../src/http/client-address.ts'

/** One login per address, then none for a long time. */
function oneLogin(trustProxy: TrustedProxies): Promise<TestServer> {
  const rates = { ...DEFAULT_RATES, loginPerAddress: { burst: 1, perSecond: 1e-9 } }
  return startTestServer({ trustProxy, rates })
}

/** Whether the address has used its login. */
async function limited(server: TestServer, forwardedFor?: string): Promise<boolean> {
  const headers = forwardedFor === undefined ? {} : { 'x-forwarded-for': forwardedFor }
  const body = { type: 'm.login.password', user: 'nobody', password: 'password' }
  const { status } = await server.call('POST', `${CLIENT}/login`, { headers, body })
  assert.ok(status === 403 || status === 429, `${status}`)
  return status === 429
}

test('without a trusted proxy X-Forwarded-For is ignored', async () => {
  await using server = await oneLogin('off')
  assert.equal(await limited(server, '192.0.2.1'), false)
  assert.equal(await limited(server, '192.0.2.2'), true)
})

for (const trusted of [1, ['127.0.0.1'], ['10.0.0.0/8', '127.0.0.0/8'], ['::ffff:127.0.0.1']] as const) {
  test(`behind a proxy (${JSON.stringify(trusted)}) the last entry counts, and earlier entries do not`, async () => {
    await using server = await oneLogin(trusted)
    assert.equal(await limited(server, '192.0.2.1'), false)
    assert.equal(await limited(server, '192.0.2.2'), false)
    assert.equal(await limited(server, '198.51.100.7, 192.0.2.1'), true)
    assert.equal(await limited(server, '198.51.100.8,nonsense,192.0.2.2'), true)
    assert.equal(await limited(server, '192.0.2.1, 192.0.2.3'), false)
  })
}

test('behind two proxies the second to last entry counts', async () => {
  await using server = await oneLogin(2)
  assert.equal(await limited(server, '192.0.2.1, 10.0.0.1'), false)
  assert.equal(await limited(server, '198.51.100.7, 192.0.2.1, 10.0.0.2'), true)
})

test('a proxy at an untrusted address counts as the client itself', async () => {
  await using server = await oneLogin(['10.0.0.0/8'])
  assert.equal(await limited(server, '192.0.2.1'), false)
  assert.equal(await limited(server, '192.0.2.2'), true)
})

test('an entry that is not an address counts as the proxy', async () => {
  await using server = await oneLogin(1)
  assert.equal(await limited(server), false)
  for (const text of ['unknown', 'a.example', '192.0.2.1:1234', '192.0.2.1, _hidden', '192.0.2.999'])
    assert.equal(await limited(server, text), true, text)
})

test('the addresses of one IPv6 network share their logins and registrations', async () => {
  await using server = await oneLogin(1)
  assert.equal(await limited(server, '2001:db8:0:1::1'), false)
  assert.equal(await limited(server, '2001:db8:0:1:ffff::2'), true)
  assert.equal(await limited(server, '2001:db8:0:2::1'), false)
  assert.equal(await limited(server, '::ffff:192.0.2.1'), false)
  assert.equal(await limited(server, '::ffff:192.0.2.2'), false)
  assert.equal(await limited(server, '192.0.2.1'), true)
  const available = async (address: string): Promise<number> => {
    const headers = { 'x-forwarded-for': address }
    return (await server.call('GET', `${CLIENT}/register/available?username=x`, { headers })).status
  }
  assert.equal(await available('2001:db8:0:3::1'), 200)
  assert.equal(await available('2001:db8:0:3::2'), 429)
})

test('X-Forwarded-For without a trusted proxy is one warning, however often it comes', async () => {
  const warnings: string[] = []
  await using server = await startTestServer()
  const { context } = server
  const log = { ...context.log, warn: (text: string) => void warnings.push(text) }
  const hook = proxyWarning({ config: context.config, log: log as typeof context.log })
  for (let n = 0; n < 3; n++)
    hook({ headers: { 'x-forwarded-for': '192.0.2.1' } } as never, undefined as never, () => {})
  assert.equal(warnings.length, 1)
  assert.match(warnings[0] ?? '', /trust_proxy is off/)
})
