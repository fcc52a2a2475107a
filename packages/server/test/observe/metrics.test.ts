/** Metrics as Prometheus reads them. Nothing is counted or served unless metrics are configured. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DEFAULT_CONFIG, DEFAULT_RATES, DEFAULT_SIZES } from '../../src/config/config.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import { type Counts, countsOf, WorkerMetrics } from '../../src/observe/worker-metrics.ts'
import { eventually, readMetrics, type Samples, samplesOf } from '@latchkey/testing/metrics.ts'
import {
  claim,
  claimNames,
  deviceKeys,
  fallback,
  ids,
  keys,
  longPoll,
  refused,
  reset,
  send,
  sync,
  tryUpload,
  until,
  upload,
} from '@latchkey/testing/test-client.ts'
import { startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'

const CONFLICT = 'io.github.johennes.msc4420.M_DUPLICATE_ONE_TIME_KEY'

/** A worker's counts as the asking process receives them: a copy. */
async function sentBy({ registry }: Metrics): Promise<Counts> {
  return structuredClone(await countsOf(registry))
}

async function metricsOf(server: TestServer): Promise<Samples> {
  assert.ok(server.metricsUrl)
  return readMetrics(server.metricsUrl)
}

test('claims are counted by outcome', async () => {
  const rates = { ...DEFAULT_RATES, claimPerTarget: { burst: 3, perSecond: 0 } }
  await using server = await startTestServer({ metricsPort: 0, rates })
  const [alice, bob, carol] = [
    await server.login('alice', 'A'),
    await server.login('bob', 'B'),
    await server.login('carol', 'C'),
  ]
  await upload(server, alice, { one_time_keys: keys(ids(5)), fallback_keys: fallback('F') })
  await claimNames(server, bob, alice, 4)
  await claimNames(server, carol, alice, 3)
  assert.equal(await claim(server, bob, carol), undefined)
  const samples = await metricsOf(server)
  assert.deepEqual(
    ['one_time_key', 'rate_limited', 'fallback', 'none'].map((outcome) =>
      samples.get(`latchkey_claims_total{outcome="${outcome}"}`),
    ),
    [5, 1, 1, 1],
  )
})

test('uploads, conflicts, purges, evictions, resets and messages are counted when they happen', async () => {
  let nowMs = Date.now()
  await using server = await startTestServer(
    { metricsPort: 0, pools: { ...DEFAULT_CONFIG.pools, onConflict: 'heal', keysPerPool: 10 } },
    { now: () => nowMs },
  )
  const alice = await server.login('alice', 'A')
  await upload(server, alice, {
    device_keys: deviceKeys(alice),
    one_time_keys: keys(ids(12)),
    fallback_keys: fallback('F'),
  })
  await upload(server, alice, { one_time_keys: keys(['k0011']) })
  const other = { one_time_keys: keys(['k0011'], 'other') }
  refused(await tryUpload(server, alice, other), 400, CONFLICT)
  nowMs += 10_000
  await upload(server, alice, other)
  await reset(server, alice, { all: true, one_time_keys: keys(['fresh']) })
  await upload(server, alice, { device_keys: deviceKeys(alice, 'another identity') })
  await send(server, alice, { [alice.userId]: { A: { n: 1 }, '*': { n: 2 } } }, 'one')
  const samples = await metricsOf(server)
  const found = Object.fromEntries(
    [
      'latchkey_uploaded_keys_total{kind="one_time_key",outcome="stored"}',
      'latchkey_uploaded_keys_total{kind="one_time_key",outcome="already_stored"}',
      'latchkey_uploaded_keys_total{kind="fallback",outcome="stored"}',
      'latchkey_evicted_keys_total',
      'latchkey_key_conflicts_total',
      'latchkey_purges_total{cause="conflict_healed"}',
      'latchkey_purges_total{cause="identity_changed"}',
      'latchkey_resets_total',
      'latchkey_to_device_messages_total',
    ].map((name) => [name.replace(/^latchkey_/, ''), samples.get(name)]),
  )
  assert.deepEqual(found, {
    'uploaded_keys_total{kind="one_time_key",outcome="stored"}': 14,
    'uploaded_keys_total{kind="one_time_key",outcome="already_stored"}': 1,
    'uploaded_keys_total{kind="fallback",outcome="stored"}': 1,
    evicted_keys_total: 2,
    key_conflicts_total: 1,
    'purges_total{cause="conflict_healed"}': 1,
    'purges_total{cause="identity_changed"}': 1,
    resets_total: 1,
    to_device_messages_total: 2,
  })
})

test('requests are counted by method, route and status; an unknown path has no label of its own', async () => {
  await using server = await startTestServer({ metricsPort: 0 })
  const alice = await server.login('alice', 'A')
  await upload(server, alice, {})
  await tryUpload(server, alice, { one_time_keys: 7 })
  await server.call('GET', '/_matrix/client/v3/nothing-of-ours')
  await server.call('GET', '/_matrix/client/v3/user/@secret:test.example/filter/77', { token: alice.token })
  const page = await (await fetch(server.metricsUrl ?? '')).text()
  const samples = samplesOf(page)
  const count = (labels: string): number | undefined =>
    samples.get(`latchkey_http_request_duration_seconds_count{${labels}}`)
  assert.equal(count('method="POST",route="/_matrix/client/v3/keys/upload",status="2xx"'), 1)
  assert.equal(count('method="POST",route="/_matrix/client/v3/keys/upload",status="4xx"'), 1)
  assert.equal(count('method="GET",route="none",status="4xx"'), 1)
  assert.ok(!page.includes('secret') && !page.includes('nothing-of-ours'), 'clients cannot choose labels')
})

test('waiting syncs are a gauge', async () => {
  await using server = await startTestServer({ metricsPort: 0 })
  const alice = await server.login('alice', 'A')
  const { next_batch: since } = await sync(server, alice)
  assert.equal((await metricsOf(server)).get('latchkey_waiting_syncs'), 0)
  const poll = await longPoll(server, alice, since)
  assert.equal((await metricsOf(server)).get('latchkey_waiting_syncs'), 1)
  await send(server, alice, { [alice.userId]: { A: {} } }, 'wake')
  await poll.answer
  assert.equal((await metricsOf(server)).get('latchkey_waiting_syncs'), 0)
})

test('a request whose client disconnected is counted as aborted', async () => {
  await using server = await startTestServer({ metricsPort: 0 })
  const alice = await server.login('alice', 'A')
  const { next_batch: since } = await sync(server, alice)
  const client = new AbortController()
  const gone = fetch(`${server.url}/_matrix/client/v3/sync?since=${since}&timeout=30000`, {
    headers: { authorization: `Bearer ${alice.token}` },
    signal: client.signal,
  })
  await until(() => server.context.waiters.count === 1)
  client.abort()
  await assert.rejects(gone)
  await until(() => server.context.waiters.count === 0)
  const aborted =
    'latchkey_http_request_duration_seconds_count{method="GET",route="/_matrix/client/v3/sync",status="aborted"}'
  await eventually(async () => (await metricsOf(server)).get(aborted) === 1)
})

test('requests answered 503 are counted, and health checks are not', async () => {
  const sizes = { ...DEFAULT_SIZES, bodyBytesInFlight: 4000 }
  await using server = await startTestServer({ metricsPort: 0, sizes })
  const alice = await server.login('alice', 'A')
  refused(await tryUpload(server, alice, { padding: 'x'.repeat(5000) }), 503, 'M_UNKNOWN')
  await server.context.store.close()
  assert.equal((await server.call('GET', '/health/ready')).status, 503)
  assert.equal((await metricsOf(server)).get('latchkey_unavailable_total'), 1)
})

test('without metrics_port nothing is counted or served, and the page is not on the client port', async () => {
  await using silent = await startTestServer()
  assert.equal(silent.metricsUrl, undefined)
  assert.equal(silent.context.metrics, undefined)
  await using counting = await startTestServer({ metricsPort: 0 })
  assert.ok(counting.metricsUrl)
  assert.notEqual(new URL(counting.metricsUrl).port, new URL(counting.url).port)
  for (const server of [silent, counting]) assert.equal((await server.call('GET', '/metrics')).status, 404)
  const elsewhere = await fetch(new URL('/_matrix/client/versions', counting.metricsUrl))
  assert.equal(elsewhere.status, 404)
  assert.equal((await fetch(counting.metricsUrl, { method: 'POST' })).status, 405)
})

test('a metrics address in use is reported with its key, and every other resource is released', async () => {
  await using first = await startTestServer({ metricsPort: 0 })
  const { port } = new URL(first.metricsUrl ?? '')
  await using second = await startTestServer()
  const { dataDir } = second
  await second.close()
  await assert.rejects(
    startTestServer({ dataDir, metricsPort: Number(port) }),
    /metrics_port \d+ on metrics_host/,
  )
  await using third = await startTestServer({ dataDir, metricsPort: 0 })
  assert.ok(third.metricsUrl)
})

test('all processes share one fence number, and each counts the times it raised the fence', async () => {
  const metrics = new Metrics()
  metrics.fence({ number: 3, raisedHere: false })
  metrics.fence({ number: 4, raisedHere: true })
  const together = new WorkerMetrics()
  const other = new Metrics()
  other.fence({ number: 4, raisedHere: false })
  for (const each of [metrics, other]) together.add({ ask: () => sentBy(each) })
  const samples = samplesOf(await together.text())
  assert.equal(samples.get('latchkey_fence'), 4)
  assert.equal(samples.get('latchkey_fence_raised_total'), 1)
})

test('the counts of a dead worker stay in the sums, and a hung worker counts with its last answer', async () => {
  const together = new WorkerMetrics()
  const [one, two] = [new Metrics(), new Metrics()]
  const first = { ask: () => sentBy(one) }
  let hangs = false
  together.add(first)
  together.add({ ask: () => (hangs ? new Promise<never>(() => {}) : sentBy(two)) })
  one.sent(3, [])
  two.sent(4, [])
  one.requestEnded('GET', '/x', '2xx', 0.004)
  const messages = async (): Promise<number | undefined> =>
    samplesOf(await together.text()).get('latchkey_to_device_messages_total')
  assert.equal(await messages(), 7)
  together.remove(first)
  assert.equal(await messages(), 7)
  two.sent(1, [])
  assert.equal(await messages(), 8)
  hangs = true
  two.sent(1, [])
  assert.equal(await messages(), 8)
  const samples = samplesOf(await together.text())
  assert.equal(samples.get('latchkey_workers'), 1)
  const requests = 'latchkey_http_request_duration_seconds'
  assert.equal(samples.get(`${requests}_bucket{le="0.005",method="GET",route="/x",status="2xx"}`), 1)
  assert.equal(samples.get(`${requests}_count{method="GET",route="/x",status="2xx"}`), 1)
})
