/** Which counts a guard trusts, and how many new keys it lets pass when it can trust none. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { startTestServer } from '@latchkey/testing/test-server.ts'
import type { AnyJson, Fetch } from '@latchkey/testing/matrix-session.ts'
import { startScene } from '../support/guard/scene.ts'

const server = await startTestServer()
after(() => server[Symbol.asyncDispose]())

const CURVE = 'signed_curve25519'
const POOL = '/unstable/dev.latchkey/keys/pool'
const HOUR_MS = 3_600_000

/** A network that changes the answers to syncs and uploads, and records empty uploads and pool reads. */
class LyingNet {
  /** Without `dev.latchkey.` members. */
  isBare = false
  inSyncs: ((count: number) => number) | undefined
  inUploads: ((count: number) => number) | undefined
  /** Answers empty uploads instead of the server. */
  refuse: number | undefined
  emptyUploads = 0
  poolReads = 0

  readonly fetch: Fetch = async (input, init) => {
    const path = new URL(input instanceof Request ? input.url : input).pathname
    if (path.endsWith('/keys/pool')) this.poolReads++
    if (path.endsWith('/keys/upload') && init?.body === '{}') {
      this.emptyUploads++
      if (this.refuse !== undefined) return Response.json({ errcode: 'M_X' }, { status: this.refuse })
    }
    const isSync = path.endsWith('/sync')
    const isChanged = isSync || path.endsWith('/keys/upload') || path.endsWith('/versions')
    if (!isChanged) return fetch(input, init)
    const response = await fetch(input, init)
    const answer: AnyJson = await response.json()
    const lie = isSync ? this.inSyncs : this.inUploads
    const counts = answer[isSync ? 'device_one_time_keys_count' : 'one_time_key_counts']
    if (lie !== undefined && counts !== undefined) counts[CURVE] = lie(counts[CURVE])
    if (this.isBare) {
      delete answer.unstable_features
      for (const name of Object.keys(answer)) if (name.startsWith('dev.latchkey.')) delete answer[name]
    }
    return Response.json(answer, { status: response.status })
  }
}

const ZERO = (): number => 0

function bareNet(): LyingNet {
  const net = new LyingNet()
  net.isBare = true
  return net
}

test('a server without pools that always reports 0 is asked once a minute, and not trusted', async () => {
  const clock = { now: 1_000_000 }
  const net = bareNet()
  const { sdk, emitted } = await startScene(server.url, 'zero', { fetch: net.fetch, now: () => clock.now })
  await sdk.round()
  net.inSyncs = ZERO
  for (let i = 0; i < 12; i++) {
    const { body } = await sdk.round()
    assert.equal(body.device_one_time_keys_count[CURVE], 50)
    clock.now += 10_000
  }
  assert.equal(sdk.state.privates.size, 50)
  assert.equal(net.emptyUploads, 2)
  assert.deepEqual(
    emitted('stale_count').map(({ received: zero, used }) => [zero, used]),
    [
      [0, 50],
      [0, 50],
    ],
    'reported once a minute',
  )
  assert.deepEqual(emitted('upload_limited'), [])
})

test('a truly emptied pool without digests is verified once and refilled at once, twice in a minute', async () => {
  const net = bareNet()
  const { sdk, claim, emitted } = await startScene(server.url, 'emptied', {
    fetch: net.fetch,
    now: () => 1_000_000,
  })
  await sdk.round()
  for (const _ of [1, 2]) {
    await claim(45)
    assert.equal((await sdk.round()).body.device_one_time_keys_count[CURVE], 5)
    assert.equal((await sdk.sync()).body.device_one_time_keys_count[CURVE], 50)
  }
  assert.equal(net.emptyUploads, 1)
  assert.deepEqual(emitted('stale_count'), [])
})

test('a count of at least half of the known one is trusted without asking', async () => {
  const net = bareNet()
  const { sdk, claim } = await startScene(server.url, 'half', { fetch: net.fetch })
  await sdk.round()
  await claim(25)
  assert.equal((await sdk.sync()).body.device_one_time_keys_count[CURVE], 25)
  assert.equal(net.emptyUploads, 0)
})

test('a doubted count is ignored while the server does not answer, and trusted if it refuses to be asked', async () => {
  const clock = { now: 1_000_000 }
  const net = bareNet()
  const { sdk, claim } = await startScene(server.url, 'mute', { fetch: net.fetch, now: () => clock.now })
  await sdk.round()
  await claim(40)
  net.refuse = 503
  assert.equal((await sdk.sync()).body.device_one_time_keys_count[CURVE], 50)
  net.refuse = 400
  clock.now += 60_000
  assert.equal((await sdk.sync()).body.device_one_time_keys_count[CURVE], 10)
})

test('in mode report a doubted count passes, and the server is not asked', async () => {
  const net = bareNet()
  const { sdk, guard } = await startScene(server.url, 'reported', { fetch: net.fetch, mode: 'report' })
  await sdk.round()
  net.inSyncs = ZERO
  assert.equal((await sdk.sync()).body.device_one_time_keys_count[CURVE], 0)
  assert.equal(net.emptyUploads, 0)
  assert.equal((await guard.status()).counts[CURVE], 0)
})

test('with an unchanged pool, a different count is not trusted', async () => {
  const net = new LyingNet()
  const { sdk, guard, emitted } = await startScene(server.url, 'same-version', { fetch: net.fetch })
  await sdk.round()
  await sdk.sync()
  net.inSyncs = (count) => count - 3
  assert.equal((await sdk.sync()).body.device_one_time_keys_count[CURVE], 50)
  assert.equal((await guard.status()).counts[CURVE], 50)
  assert.equal(net.emptyUploads, 0)
  assert.equal(emitted('stale_count').length, 1)
})

test('with a newer pool its digest decides: a contradicting count is not trusted', async () => {
  const net = new LyingNet()
  const { sdk, guard, claim, emitted } = await startScene(server.url, 'digest', { fetch: net.fetch })
  await sdk.round()
  net.inSyncs = ZERO
  const { poolReads } = net
  for (const left of [43, 50, 43, 50]) {
    if (left === 43) await claim(7)
    assert.equal((await sdk.sync()).body.device_one_time_keys_count[CURVE], left)
    await sdk.upload()
  }
  const { counts, keys } = await guard.status()
  assert.deepEqual([counts[CURVE], keys.available, keys.issued], [50, 50, 14])
  assert.deepEqual([net.poolReads, net.emptyUploads], [poolReads, 0])
  assert.deepEqual([emitted('drift'), emitted('upload_limited')], [[], []])
})

test('the count in the answer to an upload is compared with its digest too', async () => {
  const net = new LyingNet()
  const { sdk, guard } = await startScene(server.url, 'digest-upload', { fetch: net.fetch })
  net.inUploads = ZERO
  const answer = await sdk.round()
  assert.equal(answer.status, 200)
  assert.deepEqual(sdk.uploads.at(-1)?.body.one_time_key_counts, { [CURVE]: 50 })
  assert.equal(sdk.state.privates.size, 50)
  assert.equal((await guard.status()).counts[CURVE], 50)
})

test('for adopted keys, without a known digest, the pool that was read is trusted, not the count', async () => {
  const net = new LyingNet()
  const { sdk, reopen } = await startScene(server.url, 'adopted', { fetch: net.fetch, mode: 'off' })
  await sdk.round()
  const guarded = sdk.otherTab(reopen({ mode: 'heal' }))
  await guarded.sync()
  net.inSyncs = ZERO
  for (const _ of [1, 2]) {
    assert.equal((await guarded.sync()).body.device_one_time_keys_count[CURVE], 50)
  }
})

test('a server with wrong counts gets one daily budget of new keys, and the SDK sees enough', async () => {
  const clock = { now: 1_000_000 }
  const net = bareNet()
  const { sdk, reopen, emitted } = await startScene(server.url, 'liar', {
    fetch: net.fetch,
    now: () => clock.now,
    newKeysPerDay: 130,
  })
  net.inSyncs = ZERO
  net.inUploads = ZERO
  const published = async (): Promise<number> =>
    (await sdk.session.ok('GET', POOL)).algorithms[CURVE].available.length
  let tab = sdk
  for (let i = 0; i < 10; i++) {
    clock.now += 60_000
    await tab.round()
    // The budget is in the store, not in the page.
    if (i === 4) tab = tab.otherTab(reopen())
  }
  assert.equal(await published(), 130)
  assert.equal(tab.state.privates.size, 150, 'the SDK generates no further keys')
  assert.deepEqual(
    emitted('upload_limited').map(({ keys }) => keys),
    [20],
  )
  assert.ok(emitted('generation_limited').length > 0)
  assert.deepEqual(
    emitted('generation_limited').map(({ perDay }) => perDay),
    emitted('generation_limited').map(() => 130),
  )
  clock.now += 24 * HOUR_MS
  for (let i = 0; i < 10; i++) await tab.round()
  assert.equal(await published(), 260)
})

test('the budget allows publishing everything that is claimed within it, and counts a lost upload once', async () => {
  const net = new LyingNet()
  let lose = false
  const { sdk, claim, emitted } = await startScene(server.url, 'honest', {
    newKeysPerDay: 200,
    fetch: async (input, init) => {
      const response = await net.fetch(input, init)
      if (!lose || !String(input).endsWith('/keys/upload')) return response
      lose = false
      throw new TypeError('fetch failed')
    },
  })
  await sdk.round()
  for (let i = 0; i < 3; i++) {
    await claim(50)
    await sdk.sync()
    lose = true
    await assert.rejects(sdk.upload(), /fetch failed/)
    await sdk.upload()
  }
  const { body } = await sdk.sync()
  assert.equal(sdk.state.privates.size, 200)
  // Enough, and not the 50 that exist: no further key may be generated.
  assert.equal(body.device_one_time_keys_count[CURVE], 100)
  assert.deepEqual(emitted('upload_limited'), [])
  assert.deepEqual(await sdk.orphans(), [])
})

test('keys that are withdrawn before the SDK evicts them are refunded to the budget', async () => {
  const net = new LyingNet()
  const { sdk, guard, emitted } = await startScene(server.url, 'evict-budget', {
    fetch: net.fetch,
    sdkSlots: 400,
    newKeysPerDay: 150,
  })
  await sdk.round()
  for (let i = 0; i < 40; i++) {
    sdk.generate(50)
    await sdk.upload()
    sdk.restore({ ...sdk.state, privates: new Set([...sdk.state.privates].slice(-400)) })
    assert.deepEqual(await sdk.orphans(), [])
    const pool = await sdk.session.ok('GET', POOL)
    assert.ok(pool.algorithms[CURVE].available.length >= 50)
  }
  const upkeep = (await guard.history()).filter(({ cause }) => cause === 'private_keys_evicted')
  assert.ok(upkeep.length >= 7, `${upkeep.length}`)
  assert.deepEqual(emitted('not_healed'), [])
})
