/** Drift that cannot be healed now: it is told and looked at rarely, and not forgotten. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { startTestServer } from '@latchkey/testing/test-server.ts'
import { ModelSdk } from '../support/guard/model-sdk.ts'
import { copyOf, startScene } from '../support/guard/scene.ts'

const server = await startTestServer()
after(() => server[Symbol.asyncDispose]())

const AN_HOUR_MS = 3_600_000

test('a heal of a conflict that fails after the pool was read is made up for by a later sync, for the same reason', async () => {
  const clock = { now: Date.now() }
  let fails = false
  const { sdk, claim, store, reopen, told } = await startScene(server.url, 'made-up', {
    now: () => clock.now,
    fetch: async (input, init) =>
      fails && String(input).includes('/keys/reset')
        ? Response.json({ errcode: 'M_UNKNOWN' }, { status: 503 })
        : fetch(input, init),
  })
  await sdk.round()
  const backup = { state: sdk.state, store: await copyOf(store) }
  await claim(10)
  await sdk.round()
  const restored = sdk.otherTab(reopen({ store: backup.store }))
  restored.restore(backup.state)
  restored.generate(1)
  fails = true
  await restored.upload()
  assert.equal(restored.uploads.at(-1)?.status, 400)
  fails = false
  clock.now += AN_HOUR_MS
  await restored.sync()
  assert.deepEqual(await restored.orphans(), [])
  assert.deepEqual(
    told('healed').map(({ cause }) => cause),
    ['unknown_keys'],
  )
})

for (const options of [{ mode: 'report' }, { budget: { healsPerDay: 0 } }] as const) {
  test(`drift that may not be healed is looked at and told of once an hour (${Object.keys(options)})`, async () => {
    const clock = { now: Date.now() }
    let reads = 0
    const { sdk, claim, store, reopen, told } = await startScene(
      server.url,
      `refused-${Object.keys(options)}`,
      {
        now: () => clock.now,
        fetch: async (input, init) => {
          if (String(input).includes('/keys/pool')) reads++
          return fetch(input, init)
        },
      },
    )
    await sdk.round()
    const backup = await copyOf(store)
    await claim(5)
    await sdk.round()
    const restored = sdk.otherTab(reopen({ ...options, store: backup }))
    reads = 0
    for (let i = 0; i < 30; i++) {
      await restored.sync()
      clock.now += 2_000
    }
    assert.deepEqual([reads, told('drift').length, told('not_healed').length], [1, 1, 1])
    clock.now += AN_HOUR_MS
    await restored.sync()
    assert.deepEqual(
      told('drift').map(({ cause, keys }) => [cause, keys.length]),
      [
        ['unknown_keys', 5],
        ['unknown_keys', 5],
      ],
    )
    // The clock is set back: nobody waits until it has caught up.
    clock.now -= 100 * AN_HOUR_MS
    await restored.sync()
    assert.equal(reads, 3)
  })
}

test('uploads that are refused again and again are told of once, whoever refuses to heal them', async () => {
  const session = await MatrixSession.signIn(server.url, 'again', 'PHONE')
  const stranger = await MatrixSession.signIn(server.url, 'again-stranger', 'OTHER')
  const before = new ModelSdk(session)
  await before.round()
  const backup = before.state
  await stranger.claimMany(session.userId, session.deviceId, 20)
  await before.round()
  before.restore(backup)
  await stranger.claimMany(session.userId, session.deviceId, 5)
  await before.sync()
  const { reopen, told } = await startScene(server.url, 'again-scene')
  const sdk = before.otherTab(reopen({ mode: 'report' }))
  for (let i = 0; i < 10; i++) await sdk.upload()
  assert.deepEqual(
    sdk.uploads.map(({ status }) => status),
    Array.from({ length: 10 }, () => 400),
  )
  for (const type of ['drift', 'not_healed'] as const) {
    assert.deepEqual(
      told(type).map(({ cause }) => cause),
      ['sdk_rollback', 'conflict'],
    )
  }
})

test('a new epoch in the answer to an upload: the pool is read at the next sync, though the digest agrees', async () => {
  let reads = 0
  let epoch: string | undefined
  const { sdk, claim, told } = await startScene(server.url, 'epoch', {
    fetch: async (input, init) => {
      if (String(input).includes('/keys/pool')) reads++
      const response = await fetch(input, init)
      if (epoch === undefined) return response
      const text = (await response.text()).replaceAll(/"epoch":"[^"]*"/g, `"epoch":"${epoch}"`)
      return new Response(text, response)
    },
  })
  await sdk.round()
  await claim(5)
  await sdk.sync()
  reads = 0
  epoch = 'raised'
  await sdk.upload()
  await sdk.sync()
  assert.equal(reads, 1)
  for (const _ of [1, 2]) await sdk.round()
  assert.deepEqual([reads, told('drift')], [1, []])
})
