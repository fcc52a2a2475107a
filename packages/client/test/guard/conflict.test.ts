/** Uploads that a server refuses, at every server level: the retry loop ends inside the same fetch. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { REFUSING, startTestServer } from '@latchkey/testing/test-server.ts'
import { ModelSdk } from '../support/guard/model-sdk.ts'
import { hidingProxy } from '../support/guard/proxy.ts'
import { startScene } from '../support/guard/scene.ts'
import { MatrixSession } from '@latchkey/testing/matrix-session.ts'

const server = await startTestServer(REFUSING)
const msc4162 = await hidingProxy(server.url, 'msc4162')
const bare = await hidingProxy(server.url, 'bare', '/behind/a/proxy')
after(async () => {
  await Promise.all([msc4162[Symbol.asyncDispose](), bare[Symbol.asyncDispose]()])
  await server[Symbol.asyncDispose]()
})

/** An app in the common failure state: restored from a backup, refused at every sync. */
async function stuck(url: string, user: string): Promise<{ sdk: ModelSdk; session: MatrixSession }> {
  const session = await MatrixSession.signIn(url, user, 'PHONE')
  const stranger = await MatrixSession.signIn(url, `${user}-other`, 'OTHER')
  const sdk = new ModelSdk(session)
  await sdk.round()
  const backup = sdk.state
  await stranger.claimMany(session.userId, session.deviceId, 20)
  await sdk.round()
  sdk.restore(backup)
  await stranger.claimMany(session.userId, session.deviceId, 5)
  for (const _ of [1, 2]) {
    await sdk.round()
    assert.equal(sdk.uploads.at(-1)?.status, 400)
  }
  return { sdk, session }
}

/** The same device, past the proxies: to inspect the pool. */
function atServer({ userId, deviceId, token }: MatrixSession): ModelSdk {
  return new ModelSdk(MatrixSession.resume({ baseUrl: server.url, userId, deviceId, token }))
}

for (const [level, url] of [
  ['latchkey', server.url],
  ['msc4162', msc4162.url],
  ['bare', bare.url],
] as const) {
  test(`a stuck app that gets a guard uploads successfully and stays healed, server of level ${level}`, async () => {
    const { sdk: before, session } = await stuck(url, `stuck-${level}`)
    const { reopen, emitted } = await startScene(url, `stuck-${level}-scene`)
    const guard = reopen()
    const sdk = new ModelSdk(session, { fetch: guard })
    sdk.restore(before.state)
    await sdk.upload()
    assert.equal(sdk.uploads.length, 1)
    assert.equal(sdk.uploads[0]?.status, 200, 'the SDK never sees the refusal')
    for (const _ of [1, 2, 3]) await sdk.round()
    const direct = atServer(session)
    direct.restore(sdk.state)
    assert.deepEqual(await direct.orphans(), [])
    assert.equal((await guard.status()).counts['signed_curve25519'], 50)
    assert.equal(emitted('server').at(-1)?.level, level)
    assert.equal((await guard.history()).length, 1)
    assert.deepEqual(emitted('not_healed'), [])
  })

  test(`a rollback of the SDK behind a guard, server of level ${level}`, async () => {
    const { sdk, guard, claim, emitted } = await startScene(url, `alone-${level}`)
    await sdk.round()
    const backup = sdk.state
    await claim(20)
    await sdk.round()
    sdk.restore(backup)
    await claim(1)
    for (const _ of [1, 2, 3]) await sdk.round()
    assert.deepEqual(new Set(sdk.uploads.map(({ status }) => status)), new Set([200]))
    const direct = atServer(sdk.session)
    direct.restore(sdk.state)
    assert.deepEqual(await direct.orphans(), [])
    assert.equal((await guard.history()).length, 1)
    assert.deepEqual(emitted('two_writers'), [])
    assert.deepEqual(emitted('unguarded'), [])
  })
}

test('where own keys cannot be claimed, refused keys are omitted and the rest is uploaded', async () => {
  const { sdk: before, session } = await stuck(bare.url, 'no-claims')
  const refusing = (async (input: string | URL, init?: RequestInit) =>
    String(input).endsWith('/keys/claim')
      ? Response.json({ errcode: 'M_FORBIDDEN' }, { status: 403 })
      : fetch(input, init)) as typeof fetch
  const { reopen } = await startScene(bare.url, 'no-claims-scene', { fetch: refusing })
  const guard = reopen()
  const sdk = new ModelSdk(session, { fetch: guard })
  sdk.restore(before.state)
  const fallback = sdk.fallbackKey('AAAAAA')
  await sdk.upload({ more: { fallback_keys: fallback } })
  assert.equal(sdk.uploads[0]?.status, 200)
  const [heal] = await guard.history()
  assert.match(heal?.detail ?? '', /claim answered 403.*omitted 5 refused keys/)
  const [name = ''] = Object.keys(sdk.uploads[0]?.sent.one_time_keys)
  const [refused] = await guard.explain(name)
  assert.equal(refused?.state, 'unsent')
})

test('with a spent budget the SDK gets the refusal, and it is reported once', async () => {
  const { sdk: before, session } = await stuck(server.url, 'spent')
  const { reopen, emitted } = await startScene(server.url, 'spent-scene', { budget: { healsPerDay: 0 } })
  const sdk = new ModelSdk(session, { fetch: reopen() })
  sdk.restore(before.state)
  for (const _ of [1, 2, 3]) await sdk.upload()
  assert.deepEqual(
    sdk.uploads.map(({ status }) => status),
    [400, 400, 400],
  )
  assert.match(sdk.uploads[0]?.body.error, /^One time key signed_curve25519:\S+ already exists/)
  assert.deepEqual(emitted('healed'), [])
  assert.equal(emitted('not_healed').filter(({ cause }) => cause === 'conflict').length, 1)
})

test('two clients on one account are healed, and reported at the second heal within a day', async () => {
  const clock = { now: 1_000_000 }
  const { sdk, guard, reopen, claim, emitted } = await startScene(server.url, 'writers', {
    now: () => clock.now,
  })
  await sdk.round()
  const second = sdk.otherTab(reopen())
  for (const tab of [sdk, second, sdk, second]) {
    clock.now += 60_000
    await claim(3)
    await tab.round()
  }
  assert.ok((await guard.history()).length > 1)
  assert.ok(emitted('two_writers').length > 0)
  assert.deepEqual(new Set([...sdk.uploads, ...second.uploads].map(({ status }) => status)), new Set([200]))
})
