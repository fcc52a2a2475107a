/** Ordinary uploads: lost answers, upload limits, two tabs, fallback keys. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { startTestServer } from '@latchkey/testing/test-server.ts'
import { startScene } from '../support/guard/scene.ts'
import type { Fetch } from '@latchkey/testing/matrix-session.ts'

const server = await startTestServer()
after(() => server[Symbol.asyncDispose]())

const POOL = '/unstable/dev.latchkey/keys/pool'

/** Forwards requests, counts pool reads, and loses part of the next upload as requested. */
function lossy(): { fetch: Fetch; lose: 'answer' | 'request' | undefined; poolReads: number } {
  const net: ReturnType<typeof lossy> = {
    lose: undefined,
    poolReads: 0,
    fetch: async (input, init) => {
      const url = input instanceof Request ? input.url : String(input)
      if (url.includes(POOL)) net.poolReads++
      const { lose } = net
      if (!url.endsWith('/keys/upload') || lose === undefined) return fetch(input, init)
      net.lose = undefined
      if (lose === 'answer') await (await fetch(input, init)).text()
      throw new TypeError('fetch failed')
    },
  }
  return net
}

for (const lose of ['answer', 'request'] as const) {
  test(`a lost ${lose} leaves keys uploading: they are not drift, and repeating the upload settles them`, async () => {
    const net = lossy()
    const { sdk, guard, emitted, claim } = await startScene(server.url, `lost-${lose}`, { fetch: net.fetch })
    await sdk.round()
    await claim(10)
    await sdk.sync()
    net.lose = lose
    await assert.rejects(sdk.upload(), /fetch failed/)
    assert.equal((await guard.status()).keys.uploading, 10)
    await sdk.sync()
    await claim(35)
    await sdk.sync()
    await sdk.upload()
    const { keys } = await guard.status()
    assert.deepEqual([keys.uploading, keys.available, keys.issued], [undefined, 15, 45])
    assert.deepEqual([emitted('drift'), await guard.history()], [[], []])
    assert.equal(net.poolReads, 1, 'the pool was read at first contact only')
    assert.deepEqual(await sdk.orphans(), [])
  })
}

test('a key that the server has in another place is not stored, and not drift', async () => {
  const { sdk, guard, emitted } = await startScene(server.url, 'elsewhere')
  await sdk.round()
  const fallbackKeys = sdk.fallbackKey('AAAAAF')
  const [key] = Object.values(fallbackKeys)
  await sdk.upload({ more: { fallback_keys: fallbackKeys } })
  const copy = 'signed_curve25519:COPY'
  await sdk.upload({ more: { one_time_keys: { [copy]: key } } })
  assert.equal(sdk.uploads.at(-1)?.body['dev.latchkey.outcomes'][copy], 'in_use_elsewhere')
  const [known] = await guard.explain(copy)
  assert.equal(known?.state, 'issued', 'the private half is kept, and the key is not expected in the pool')
  for (const _ of [1, 2]) await sdk.round()
  assert.deepEqual([emitted('drift'), await guard.history()], [[], []])
})

test('keys are in the ledger before their request is sent', async () => {
  const seen: (number | undefined)[] = []
  const { sdk, guard } = await startScene(server.url, 'ahead', {
    fetch: async (input, init) => {
      if (String(input).endsWith('/keys/upload')) seen.push((await guard.status()).keys.uploading)
      return fetch(input, init)
    },
  })
  await sdk.round()
  assert.deepEqual(seen, [50])
})

test('surplus keys are withheld: device and fallback keys pass, and the counts are the true ones', async () => {
  const { sdk, guard, emitted } = await startScene(server.url, 'flood')
  await sdk.round()
  sdk.generate(50)
  await sdk.upload()
  for (const _ of [1, 2, 3]) {
    sdk.generate(50)
    const answer = await sdk.upload({ more: { fallback_keys: sdk.fallbackKey('AAAAAA') } })
    assert.deepEqual(answer?.body.one_time_key_counts, { signed_curve25519: 100 })
  }
  const pool = await sdk.session.ok('GET', '/unstable/dev.latchkey/keys/pool')
  assert.equal(pool.algorithms.signed_curve25519.available.length, 100)
  assert.equal(pool.algorithms.signed_curve25519.fallback.key_id, 'AAAAAA')
  assert.deepEqual(
    emitted('upload_limited').map(({ keys, published }) => [keys, published]),
    [[50, 100]],
  )
  assert.equal((await guard.status()).keys.unsent, 150)
  assert.deepEqual(emitted('not_healed'), [])
})

test('before the SDK evicts the private halves of published keys, those are withdrawn for new ones', async () => {
  const { sdk, guard, emitted } = await startScene(server.url, 'evict', { sdkSlots: 400 })
  await sdk.round()
  for (let i = 0; i < 12; i++) {
    sdk.generate(50)
    await sdk.upload()
    // The SDK's own rule: the lowest IDs are evicted.
    sdk.restore({ ...sdk.state, privates: new Set([...sdk.state.privates].slice(-400)) })
    assert.deepEqual(await sdk.orphans(), [])
  }
  const upkeep = (await guard.history()).filter(({ cause }) => cause === 'private_keys_evicted')
  assert.ok(upkeep.length >= 2, `${upkeep.length}`)
  assert.deepEqual(emitted('not_healed'), [])
})

test('two tabs that upload at once do so one after the other, and share one ledger', async () => {
  const { sdk, guard, reopen, claim, emitted } = await startScene(server.url, 'tabs')
  await sdk.round()
  await claim(20)
  await sdk.sync()
  const second = sdk.otherTab(reopen())
  const answers = await Promise.all([sdk.upload(), second.upload()])
  assert.deepEqual(
    answers.map((answer) => answer?.status),
    [200, 200],
  )
  await Promise.all([sdk.sync(), second.sync()])
  assert.equal((await guard.status()).keys.available, 50)
  assert.deepEqual([emitted('drift'), await guard.history()], [[], []])
})

test('fallback keys: the current one, the former one, and one whose private half an SDK has dropped', async () => {
  const { sdk, guard } = await startScene(server.url, 'fallbacks')
  const keys: string[] = []
  for (const id of ['AAAAAA', 'AAAAAQ', 'AAAAAg']) {
    const more = { fallback_keys: sdk.fallbackKey(id) }
    keys.push(more.fallback_keys[`signed_curve25519:${id}`].key)
    await sdk.upload({ more })
  }
  const verdicts = await Promise.all(keys.map((key) => guard.reportUndecryptable(key)))
  assert.deepEqual(verdicts, ['fallback_replaced', 'private_key_held', 'private_key_held'])
})

test('the ledger follows a reset that the app sends itself', async () => {
  const { sdk, guard, emitted } = await startScene(server.url, 'own-reset')
  await sdk.round()
  await sdk.session.ok('POST', '/unstable/org.matrix.msc4162/keys/reset', { all: true })
  assert.equal((await guard.status()).keys.withdrawn, 50)
  await sdk.round()
  assert.equal((await guard.status()).keys.available, 50)
  assert.deepEqual(emitted('drift'), [])
})
