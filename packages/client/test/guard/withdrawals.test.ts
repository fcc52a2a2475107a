/** Pending withdrawals are eventually carried out, despite failures, crashes, pauses and modes. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { REFUSING, startTestServer } from '@latchkey/testing/test-server.ts'
import { ModelSdk } from '../support/guard/model-sdk.ts'
import { GuardNet } from '../support/guard/net.ts'
import { hidingProxy } from '../support/guard/proxy.ts'
import { copyOf, orphansAt, type Scene, startScene } from '../support/guard/scene.ts'

const server = await startTestServer(REFUSING)
const msc4162 = await hidingProxy(server.url, 'msc4162')
const bare = await hidingProxy(server.url, 'bare')
after(async () => {
  await Promise.all([msc4162[Symbol.asyncDispose](), bare[Symbol.asyncDispose]()])
  await server[Symbol.asyncDispose]()
})

const RESET = '/keys/reset'
const LEVELS = [
  ['latchkey', server.url, RESET],
  ['msc4162', msc4162.url, RESET],
  ['bare', bare.url, '/keys/claim'],
] as const

/** A store that is so old that the IDs it reuses were issued long ago: no upload conflicts at first. */
async function rollBack({ sdk, claim }: Scene): Promise<void> {
  await sdk.round()
  const backup = sdk.state
  for (let round = 0; round < 9; round++) {
    await claim(10)
    await sdk.round()
  }
  sdk.restore(backup)
  await claim(1)
}

for (const [level, url, path] of LEVELS) {
  test(`a failed withdrawal is repeated at a later sync, server of level ${level}`, async () => {
    const clock = { now: 1_000_000 }
    const net = new GuardNet()
    const scene = await startScene(url, `fails-${level}`, { fetch: net.fetch, now: () => clock.now })
    const { sdk, emitted } = scene
    await rollBack(scene)
    net.fail(path, { status: 503 })
    await sdk.round()
    assert.ok((await orphansAt(server.url, sdk)).length > 40)
    assert.equal(emitted('not_healed').at(-1)?.cause, 'sdk_rollback')
    clock.now += 60_000
    await sdk.sync()
    assert.deepEqual(await orphansAt(server.url, sdk), [])
    for (const _ of [1, 2]) await sdk.round()
    assert.equal(sdk.uploads.at(-1)?.body.one_time_key_counts.signed_curve25519, 50)
    assert.deepEqual(new Set(sdk.uploads.map(({ status }) => status)), new Set([200]))
    assert.deepEqual(await orphansAt(server.url, sdk), [])
  })

  test(`a crash between the ledger and the withdrawal loses nothing, server of level ${level}`, async () => {
    const net = new GuardNet()
    const scene = await startScene(url, `crash-${level}`, { fetch: net.fetch, budget: { pauseMs: 0 } })
    const { sdk, store, reopen } = scene
    await rollBack(scene)
    let atRequest = store
    await sdk.sync()
    net.meet(path, async () => {
      atRequest = await copyOf(store)
    })
    net.fail(path, undefined, 10)
    await sdk.upload().catch(() => undefined)
    net.mend()
    assert.notEqual(atRequest, store)
    const restarted = sdk.otherTab(reopen({ store: atRequest }))
    for (const _ of [1, 2]) await restarted.round()
    assert.deepEqual(await orphansAt(server.url, restarted), [])
  })

  test(`reported drift is withdrawn once the mode is heal, server of level ${level}`, async () => {
    const scene = await startScene(url, `reported-${level}`, { mode: 'report' })
    const { sdk, reopen, claim } = scene
    await rollBack(scene)
    for (const _ of [1, 2]) await sdk.round()
    assert.ok((await orphansAt(server.url, sdk)).length > 40)
    const healing = sdk.otherTab(reopen({ mode: 'heal' }))
    await healing.round()
    assert.deepEqual(await orphansAt(server.url, healing), [])
    await claim(1)
    await healing.round()
    assert.deepEqual(await orphansAt(server.url, healing), [])
  })
}

for (const [level, url, path] of LEVELS.slice(1)) {
  test(`after an identity change the former keys are withdrawn despite failures, level ${level}`, async () => {
    const clock = { now: 1_000_000 }
    const net = new GuardNet()
    // The server must not purge by itself, as Latchkey would when it sees other identity keys.
    net.change('/keys/upload', ({ device_keys: _hidden, ...body }) => body)
    const { sdk, claim, guard, emitted } = await startScene(url, `identity-${level}`, {
      fetch: net.fetch,
      now: () => clock.now,
    })
    await sdk.round()
    await claim(50)
    await sdk.round()
    const fresh = new ModelSdk(sdk.session, { fetch: guard })
    fresh.generate(20)
    net.fail(path, { status: 503 })
    await fresh.upload()
    assert.equal(emitted('not_healed').at(-1)?.cause, 'identity_changed')
    clock.now += 60_000
    await fresh.round()
    assert.deepEqual(await orphansAt(server.url, fresh), [])
  })
}

test('after a failed withdrawal, good keys under the same IDs stay', async () => {
  const clock = { now: 1_000_000 }
  const net = new GuardNet()
  const scene = await startScene(msc4162.url, 'same-ids', { fetch: net.fetch, now: () => clock.now })
  const { sdk, guard } = scene
  await rollBack(scene)
  net.fail(RESET, { status: 503 })
  await sdk.round()
  const good = Object.keys(sdk.uploads.at(-1)?.sent.one_time_keys)
  assert.ok(good.length > 0)
  clock.now += 60_000
  const answer = await sdk.sync()
  assert.deepEqual(await orphansAt(server.url, sdk), [])
  assert.equal(answer.body.device_one_time_keys_count.signed_curve25519, good.length)
  for (const name of good) {
    const states = (await guard.explain(name)).map(({ state }) => state)
    assert.ok(states.includes('available'), `${name}: ${states.join()}`)
  }
})

test('a conflict on plain MSC4162 is healed including all unknown keys: no dead key is left', async () => {
  const { sdk, store, claim, reopen, emitted } = await startScene(msc4162.url, 'successors')
  await sdk.round()
  const backup = { state: sdk.state, store: await copyOf(store) }
  for (let round = 0; round < 5; round++) {
    await claim(8)
    await sdk.round()
  }
  const guard = reopen({ store: backup.store })
  const restored = sdk.otherTab(guard)
  restored.restore(backup.state)
  restored.generate(1)
  for (let round = 0; round < 20; round++) {
    await restored.round()
    await claim(1)
  }
  assert.deepEqual(await orphansAt(server.url, restored), [])
  assert.equal((await guard.history()).length, 1)
  assert.deepEqual(emitted('two_writers'), [])
})

test('more keys than one reset can name are all withdrawn', async () => {
  const net = new GuardNet()
  const { sdk, guard } = await startScene(msc4162.url, 'many', {
    fetch: net.fetch,
    maxPublished: 10_000,
    newKeysPerDay: 10_000,
  })
  await sdk.round()
  const backup = sdk.state
  for (let batch = 0; batch < 12; batch++) {
    sdk.generate(100)
    await sdk.upload()
  }
  sdk.restore(backup)
  sdk.generate(1)
  await sdk.upload()
  assert.deepEqual(await orphansAt(server.url, sdk), [])
  const [heal] = await guard.history()
  assert.equal(heal?.detail, 'reset 1200 keys')
  assert.equal(net.count(RESET), 2)
})
