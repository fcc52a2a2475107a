/** Drift that cannot be healed now: it is reported and checked rarely, and not forgotten. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { REFUSING, startTestServer } from '@latchkey/testing/test-server.ts'
import { ModelSdk } from '../support/guard/model-sdk.ts'
import { copyOf, startScene } from '../support/guard/scene.ts'

const server = await startTestServer(REFUSING)
after(() => server[Symbol.asyncDispose]())

const AN_HOUR_MS = 3_600_000

test('a conflict whose heal fails after the pool read is healed by a later sync, for the same cause', async () => {
  const clock = { now: Date.now() }
  let fails = false
  const { sdk, claim, store, reopen, emitted } = await startScene(server.url, 'made-up', {
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
    emitted('healed').map(({ cause }) => cause),
    ['unknown_keys'],
  )
})

for (const options of [{ mode: 'report' }, { budget: { healsPerDay: 0 } }] as const) {
  test(`drift that may not be healed is checked and reported once an hour (${Object.keys(options)})`, async () => {
    const clock = { now: Date.now() }
    let reads = 0
    const { sdk, claim, store, reopen, emitted } = await startScene(
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
    assert.deepEqual([reads, emitted('drift').length, emitted('not_healed').length], [1, 1, 1])
    clock.now += AN_HOUR_MS
    await restored.sync()
    assert.deepEqual(
      emitted('drift').map(({ cause, keys }) => [cause, keys.length]),
      [
        ['unknown_keys', 5],
        ['unknown_keys', 5],
      ],
    )
    // The clock is moved back: no heal waits until it has caught up.
    clock.now -= 100 * AN_HOUR_MS
    await restored.sync()
    assert.equal(reads, 3)
  })
}

test('repeated refusals of uploads are reported once, regardless of why they are not healed', async () => {
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
  const { reopen, emitted } = await startScene(server.url, 'again-scene')
  const sdk = before.otherTab(reopen({ mode: 'report' }))
  for (let i = 0; i < 10; i++) await sdk.upload()
  assert.deepEqual(
    sdk.uploads.map(({ status }) => status),
    Array.from({ length: 10 }, () => 400),
  )
  for (const type of ['drift', 'not_healed'] as const) {
    assert.deepEqual(
      emitted(type).map(({ cause }) => cause),
      ['sdk_rollback', 'conflict'],
    )
  }
})

test('after a new epoch in an upload answer the next sync reads the pool, despite a matching digest', async () => {
  let reads = 0
  let epoch: string | undefined
  const { sdk, claim, emitted } = await startScene(server.url, 'epoch', {
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
  assert.deepEqual([reads, emitted('drift')], [1, []])
})
