/** A server's level is known from its own answers, never inferred from a failure. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { guardFetch, memoryStore } from '@latchkey/client'
import { startTestServer } from '@latchkey/testing/test-server.ts'
import { MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { ModelSdk } from '../support/guard/model-sdk.ts'
import { GuardNet } from '../support/guard/net.ts'
import { hidingProxy } from '../support/guard/proxy.ts'
import { orphansAt, startScene } from '../support/guard/scene.ts'

const server = await startTestServer()
const msc4162 = await hidingProxy(server.url, 'msc4162')
const bare = await hidingProxy(server.url, 'bare')
after(async () => {
  await Promise.all([msc4162[Symbol.asyncDispose](), bare[Symbol.asyncDispose]()])
  await server[Symbol.asyncDispose]()
})

/** An app whose next upload conflicts, about to get its first guard. */
async function conflicting(url: string, user: string): Promise<ModelSdk> {
  const session = await MatrixSession.signIn(url, user, 'PHONE')
  const stranger = await MatrixSession.signIn(url, `${user}-other`, 'OTHER')
  const sdk = new ModelSdk(session)
  await sdk.round()
  const backup = sdk.state
  await stranger.claimMany(session.userId, session.deviceId, 20)
  await sdk.round()
  sdk.restore(backup)
  await stranger.claimMany(session.userId, session.deviceId, 5)
  await sdk.sync()
  return sdk
}

test('a conflict that lists its keys identifies Latchkey, even without /versions', async () => {
  const net = new GuardNet()
  net.fail('/versions', { status: 503 }, 100)
  const sdk = (await conflicting(server.url, 'lists')).otherTab(
    guardFetch(net.fetch, { store: memoryStore() }),
  )
  await sdk.upload()
  assert.equal(sdk.uploads[0]?.status, 200)
  assert.equal(net.count('/keys/claim'), 0)
  assert.deepEqual(await sdk.orphans(), [])
})

for (const [level, url] of [
  ['msc4162', msc4162.url],
  ['bare', bare.url],
] as const) {
  test(`nothing is claimed or reset before /versions answers, server of level ${level}`, async () => {
    const net = new GuardNet()
    net.fail('/versions', { status: 503 }, 100)
    const before = await conflicting(url, `unknown-${level}`)
    const guard = guardFetch(net.fetch, { store: memoryStore() })
    const sdk = before.otherTab(guard)
    await sdk.upload()
    assert.equal(sdk.uploads[0]?.status, 400)
    assert.deepEqual([net.count('/keys/claim'), net.count('/keys/reset')], [0, 0])
    assert.deepEqual(await guard.history(), [], 'costs no heal')
    net.mend()
    await sdk.upload()
    assert.equal(sdk.uploads[1]?.status, 200)
    assert.deepEqual(await orphansAt(server.url, sdk), [])
  })
}

for (const [level, url] of [
  ['latchkey', server.url],
  ['msc4162', msc4162.url],
] as const) {
  for (const errcode of ['M_UNRECOGNIZED', undefined] as const) {
    test(`a reset that answers 404 ${errcode ?? 'of a proxy'} drains nothing, server of level ${level}`, async () => {
      const clock = { now: 1_000_000 }
      const net = new GuardNet()
      const before = await conflicting(url, `once-${level}-${errcode ?? 'proxy'}`.toLowerCase())
      const guard = guardFetch(net.fetch, { store: memoryStore(), now: () => clock.now })
      const sdk = before.otherTab(guard)
      net.fail('/keys/reset', { status: 404, body: errcode === undefined ? {} : { errcode } })
      await sdk.upload()
      clock.now += 60_000
      await sdk.upload()
      assert.equal(sdk.uploads.at(-1)?.status, 200)
      assert.equal(net.count('/keys/claim'), 0)
      assert.deepEqual(await orphansAt(server.url, sdk), [])
      assert.equal((await guard.status()).level, level)
    })
  }
}

test('syncs ask for /versions once a minute while it is unavailable', async () => {
  const clock = { now: 1_000_000 }
  const net = new GuardNet()
  net.fail('/versions', undefined, 100)
  const { sdk } = await startScene(bare.url, 'versions', { fetch: net.fetch, now: () => clock.now })
  for (let i = 0; i < 10; i++) await sdk.sync()
  assert.equal(net.count('/versions'), 1)
  clock.now += 60_000
  await sdk.sync()
  assert.equal(net.count('/versions'), 2)
})

test('a server that loses its reset in a downgrade is asked for its level again', async () => {
  const clock = { now: 1_000_000 }
  const net = new GuardNet()
  const { sdk, claim, guard } = await startScene(bare.url, 'downgraded', {
    fetch: net.fetch,
    now: () => clock.now,
  })
  net.fail('/versions', { status: 200, body: { unstable_features: { 'org.matrix.msc4162': true } } })
  await sdk.round()
  const backup = sdk.state
  await claim(20)
  await sdk.round()
  sdk.restore(backup)
  await claim(1)
  for (const _ of [1, 2]) {
    await sdk.round()
    clock.now += 60_000
  }
  assert.equal((await guard.status()).level, 'bare')
  assert.deepEqual(await orphansAt(server.url, sdk), [])
})
