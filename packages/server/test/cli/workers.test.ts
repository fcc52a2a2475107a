/**
 * Several processes behind one address, as real processes over PostgreSQL. Needs LATCHKEY_TEST_POSTGRES
 * (@latchkey/testing/test-schema.ts).
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { connect, createServer } from 'node:net'
import { test } from 'node:test'
import { eventually, readMetrics } from '@latchkey/testing/metrics.ts'
import {
  READY,
  type RunningProcess,
  runLatchkey,
  startLatchkey,
  temporaryDirectory,
} from '@latchkey/testing/run-latchkey.ts'
import { claimNames, ids, keys, named, SYNC, upload } from '@latchkey/testing/test-client.ts'
import { openTestSchema, skipWithoutPostgres as skip } from '@latchkey/testing/test-schema.ts'
import { clientOf, type TestClient } from '@latchkey/testing/test-server.ts'

const VERSIONS = '/_matrix/client/versions'
const WORKERS = 3

type Crew = RunningProcess & { readonly url: string; readonly database: string }

/** Runs a test against a server with workers over an empty database. */
async function withWorkers(work: (crew: Crew) => Promise<void>, ...args: string[]): Promise<void> {
  using directory = temporaryDirectory()
  const schema = await openTestSchema(directory.path)
  assert.ok(schema)
  const environment = { LATCHKEY_DATABASE: schema.database, LATCHKEY_DATABASE_CONNECTIONS: '3' }
  const common = ['--registration', 'open', '--limits', 'off', '--data', directory.path]
  try {
    await using server = await startLatchkey(['--workers', `${WORKERS}`, ...common, ...args], { environment })
    await work(Object.assign(server, { database: schema.database }))
  } finally {
    await schema.drop()
  }
}

function workersOf({ child }: RunningProcess): number[] {
  return listProcesses()
    .filter(({ parent, state }) => parent === child.pid && !state.startsWith('Z'))
    .map(({ pid }) => pid)
}

/** Whether a process still runs. A process that its parent has not reaped yet is listed as a zombie. */
function runs(pid: number): boolean {
  return listProcesses().some((process) => process.pid === pid && !process.state.startsWith('Z'))
}

function listProcesses(): { pid: number; parent: number; state: string }[] {
  const lines = execFileSync('ps', ['-eo', 'pid=,ppid=,stat=,comm=']).toString().trimEnd().split('\n')
  return lines.flatMap((line) => {
    const [pid, parent, state = '', command] = line.trim().split(/\s+/)
    return command === 'ps' ? [] : [{ pid: Number(pid), parent: Number(parent), state }]
  })
}

/** Uses a connection of its own, so that the next worker in turn gets it. */
async function statusOf(url: string, path = VERSIONS): Promise<number> {
  const response = await fetch(url + path, {
    headers: { connection: 'close' },
    signal: AbortSignal.timeout(10_000),
  })
  await response.arrayBuffer()
  return response.status
}

test('workers without PostgreSQL are refused with the remedy, by serve and by config check', async () => {
  for (const command of [
    ['serve', '--port', '0'],
    ['config', 'check'],
  ]) {
    const { code, stdout, stderr } = await runLatchkey([...command, '--workers', '2'])
    assert.deepEqual([code, stdout], [1, ''])
    assert.match(stderr, /^Configuration: workers \(from --workers\) is 2, .*--database.*\n$/)
  }
})

test('all workers share one address and one database, and each of them answers any request', { skip }, () =>
  withWorkers(async (server) => {
    assert.equal(workersOf(server).length, WORKERS)
    const client = clientOf(server.url)
    const alice = await client.login('alice', 'A')
    const headers = { connection: 'close' }
    const call: TestClient['call'] = (method, path, options) =>
      client.call(method, path, { ...options, headers })
    const anywhere = { ...client, call }
    await upload(anywhere, alice, { one_time_keys: keys(ids(WORKERS * 3)) })
    assert.deepEqual(await claimNames(anywhere, alice, alice, WORKERS * 3), ids(WORKERS * 3).map(named))
    server.child.kill('SIGTERM')
    const { code, stdout, stderr } = await server.ended
    assert.equal(code, 0)
    assert.equal(stderr, '')
    assert.equal(stdout.split('\n').length, 2, 'one line, when all are ready')
    assert.match(stdout, new RegExp(`^${READY.source.trimEnd()}`))
    assert.match(stdout, new RegExp(`, ${WORKERS} workers\\. `))
  }),
)

test('SIGTERM answers the syncs that wait on every worker, and leaves no worker running', { skip }, () =>
  withWorkers(
    async (server) => {
      const client = clientOf(server.url)
      const alice = await client.login('alice', 'A')
      const { token } = alice
      const { body } = await client.call('GET', SYNC, { token })
      const metricsUrl = metricsOf(await server.printed(READY))
      const polls = Array.from({ length: WORKERS * 2 }, () =>
        client.call('GET', `${SYNC}?since=${body.next_batch}&timeout=60000`, {
          token,
          headers: { connection: 'close' },
        }),
      )
      await eventually(
        async () => (await readMetrics(metricsUrl)).get('latchkey_waiting_syncs') === polls.length,
      )
      const workers = workersOf(server)
      server.child.kill('SIGTERM')
      for (const poll of polls) assert.equal((await poll).status, 200)
      assert.equal((await server.ended).code, 0)
      assert.deepEqual(workers.filter(runs), [])
      await assert.rejects(statusOf(server.url))
    },
    '--metrics-port',
    '0',
  ),
)

test('a killed worker is replaced, and requests are still answered', { skip }, () =>
  withWorkers(async (server) => {
    const before = workersOf(server)
    const [victim = 0] = before
    process.kill(victim, 'SIGKILL')
    // Until the parent learns of the exit, it hands connections to the dead worker, which fail.
    await server.printed(/a worker exited/, 'stderr')
    for (let n = 0; n < WORKERS * 4; n++) assert.equal(await statusOf(server.url), 200)
    await eventually(async () => {
      assert.equal(await statusOf(server.url), 200)
      return workersOf(server).length === WORKERS
    })
    assert.equal(workersOf(server).filter((pid) => before.includes(pid)).length, WORKERS - 1)
    server.child.kill('SIGTERM')
    const { code, stderr } = await server.ended
    assert.equal(code, 0)
    const [line, ...others] = stderr.trimEnd().split('\n')
    assert.deepEqual(others, [])
    const { worker, signal } = JSON.parse(line ?? '')
    assert.deepEqual([worker, signal], [victim, 'SIGKILL'])
  }),
)

test('when all workers die at once, their replacements serve the same address', { skip }, () =>
  withWorkers(async (server) => {
    for (const pid of workersOf(server)) process.kill(pid, 'SIGKILL')
    await eventually(() =>
      statusOf(server.url).then(
        (status) => status === 200,
        () => false,
      ),
    )
    await eventually(async () => workersOf(server).length === WORKERS)
  }),
)

test('workers exit when their parent is killed, and answer the requests they already have', { skip }, () =>
  withWorkers(
    async (server) => {
      const client = clientOf(server.url)
      const { token } = await client.login('alice', 'A')
      const { body } = await client.call('GET', SYNC, { token })
      const metricsUrl = metricsOf(await server.printed(READY))
      const poll = client.call('GET', `${SYNC}?since=${body.next_batch}&timeout=60000`, { token })
      await eventually(async () => (await readMetrics(metricsUrl)).get('latchkey_waiting_syncs') === 1)
      const workers = workersOf(server)
      server.child.kill('SIGKILL')
      assert.equal((await poll).status, 200)
      await eventually(async () => !workers.some(runs))
    },
    '--metrics-port',
    '0',
  ),
)

test('the metrics of all workers are one page, and keep the counts of a worker that died', { skip }, () =>
  withWorkers(
    async (server) => {
      const metricsUrl = metricsOf(await server.printed(READY))
      const requests = `latchkey_http_request_duration_seconds_count{method="GET",route="${VERSIONS}",status="2xx"}`
      for (let n = 0; n < WORKERS * 4; n++) await statusOf(server.url)
      await eventually(async () => (await readMetrics(metricsUrl)).get(requests) === WORKERS * 4)
      const [victim = 0] = workersOf(server)
      process.kill(victim, 'SIGKILL')
      await eventually(async () => {
        const samples = await readMetrics(metricsUrl)
        assert.equal(samples.get(requests), WORKERS * 4)
        const [workers, restarts] = [
          samples.get('latchkey_workers'),
          samples.get('latchkey_worker_restarts_total'),
        ]
        return workers === WORKERS && restarts === 1
      })
      assert.equal(await statusOf(server.url, '/metrics'), 404)
    },
    '--metrics-port',
    '0',
  ),
)

function metricsOf([line]: RegExpExecArray): string {
  const [, url = ''] = /metrics (\S+)\. /.exec(line) ?? []
  return url
}

test('a failed start is reported once for all workers, and leaves no process running', {
  skip,
}, async () => {
  using directory = temporaryDirectory()
  const schema = await openTestSchema(directory.path)
  assert.ok(schema)
  // unref: a failing test must not wait for this server.
  const taken = createServer().unref().listen(0, '127.0.0.1')
  await new Promise((resolve) => taken.once('listening', resolve))
  const address = taken.address()
  assert.ok(address !== null && typeof address === 'object')
  const port = `${address.port}`
  const failures: [string, string[], RegExp][] = [
    ['postgres://me:hunter2@127.0.0.1:1/latchkey', ['--port', '0'], /cannot be used/],
    [schema.database, ['--port', port], /127\.0\.0\.1:\d+ is already in use by another program/],
    [schema.database, ['--port', '0', '--metrics-port', port], /^Configuration: metrics_port/],
  ]
  for (const [database, args, expected] of failures) {
    const environment = { LATCHKEY_DATABASE: database }
    const { code, stdout, stderr } = await runLatchkey(['serve', '--workers', '4', ...args], { environment })
    assert.deepEqual([code, stdout], [1, ''])
    assert.match(stderr, expected)
    assert.equal(stderr.trimEnd().split('\n').length, 1, stderr)
    assert.ok(!stderr.includes('hunter2'), stderr)
  }
  taken.close()
  await schema.drop()
})

test('a second signal ends all processes at once, with exit code 1', { skip }, () =>
  withWorkers(async (server) => {
    const { hostname, port } = new URL(server.url)
    const socket = connect({ host: hostname, port: Number(port) })
    socket.on('error', () => {})
    await new Promise((resolve) => socket.once('connect', resolve))
    socket.write(`GET ${VERSIONS} HTTP/1.1\r\nHost: x\r\n\r\n`)
    await new Promise((resolve) => socket.once('data', resolve))
    socket.write('POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{')
    const workers = workersOf(server)
    server.child.kill('SIGTERM')
    // A signal within half a second counts as the same one, because a terminal and npm both send it.
    const again = setInterval(() => server.child.kill('SIGTERM'), 100)
    const { code, stderr } = await server.ended
    clearInterval(again)
    assert.equal(code, 1)
    assert.equal(stderr, 'Exited immediately on a second SIGTERM. All acknowledged writes are stored.\n')
    await eventually(async () => !workers.some(runs))
  }),
)
