/**
 * Claims, uploads and idle syncs per second, large claims and memory on SQLite, with a bare Fastify server as the
 * yardstick in the same run. `npm run bench` prints a table; RESULTS.md has figures with date and machine. A run with
 * failures, duplicate keys or false misses exits 1.
 */
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fill, type FilledDevice, makeKey } from './lib/fill.ts'
import { Connection, type LoadOptions, type LoadResult, type Request, runLoad } from './lib/load.ts'
import { cpuMicroseconds, residentBytes, type Running, startLatchkey, startYardstick } from './lib/process.ts'

const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 5)
const DURATION_MS = Number(process.env['BENCH_MS'] ?? 3000)
const WARM_UP_MS = 2000
const DEVICES = 4000
const KEYS_EACH = 50
const HOT_KEYS = 120_000
const CONNECTIONS = 64
const IDLE_POLLS = 2000
const CLAIM = '/_matrix/client/v3/keys/claim'

const YARDSTICK = { POST: 'bare Fastify, POST', GET: 'bare Fastify, GET' } as const

type Row = { readonly name: string; readonly unit: string; readonly values: number[] }
const rows = new Map<string, Row>()
const faults: string[] = []

function record(name: string, unit: string, value: number): void {
  const row = rows.get(name) ?? { name, unit, values: [] }
  row.values.push(value)
  rows.set(name, row)
}

/** Runs a load and records throughput, tail latency and server processor time per request (the most stable figure). */
async function measureLoad(
  name: string,
  server: Running,
  load: Omit<LoadOptions, 'url'>,
): Promise<LoadResult> {
  // Warms up every server, the yardstick included, so that compilation is not measured.
  if (load.durationMs !== undefined) await runLoad({ url: server.url, ...load, durationMs: WARM_UP_MS })
  const before = cpuMicroseconds(server.pid)
  const result = await runLoad({ url: server.url, ...load })
  record(`${name}, CPU`, 'us', (cpuMicroseconds(server.pid) - before) / result.requests)
  record(name, 'per second', result.perSecond)
  record(`${name}, p99`, 'ms', result.p99Ms)
  if (result.failures > 0) faults.push(`${name}: ${result.failures} of ${result.requests} requests failed`)
  return result
}

const workDir = mkdtempSync(join(tmpdir(), 'latchkey-bench-'))
try {
  await main()
} finally {
  rmSync(workDir, { recursive: true, force: true })
}

async function main(): Promise<void> {
  const { devices, hot } = await fillTemplates()
  for (let round = 0; round < ROUNDS; round++) {
    await measureYardstick()
    await withServer('many', (server) => measureClaims(server, devices))
    await withServer('hot', (server) => measureHotClaims(server, hot))
    await withServer('many', (server) => measureBigClaims(server, devices))
    await withServer('many', (server) => measureUploads(server, devices))
    await withServer('many', (server) => measureIdle(server, devices))
    process.stderr.write(`round ${round + 1} of ${ROUNDS}\n`)
  }
  print()
  if (faults.length > 0) {
    for (const fault of new Set(faults)) console.error(fault)
    process.exitCode = 1
  }
}

async function fillTemplates(): Promise<{ devices: FilledDevice[]; hot: FilledDevice }> {
  const began = performance.now()
  const devices = await fill({
    dataDir: join(workDir, 'many'),
    devices: DEVICES,
    keysEach: KEYS_EACH,
    fallback: true,
  })
  const seconds = (performance.now() - began) / 1000
  process.stderr.write(`filled ${DEVICES} devices with ${KEYS_EACH} keys each in ${seconds.toFixed(1)} s\n`)
  const [hot] = await fill({ dataDir: join(workDir, 'hot'), devices: 1, keysEach: HOT_KEYS, fallback: true })
  if (hot === undefined) throw new Error('nothing was filled')
  return { devices, hot }
}

/** Runs a measurement on a fresh copy of a filled directory. */
async function withServer(template: string, measure: (server: Running) => Promise<void>): Promise<void> {
  const dataDir = mkdtempSync(join(workDir, 'run-'))
  cpSync(join(workDir, template), dataDir, { recursive: true })
  const began = performance.now()
  const server = await startLatchkey(dataDir)
  record(`ready, ${template}`, 'ms', performance.now() - began)
  try {
    await measure(server)
    record('memory at the end of a measurement', 'MB', residentBytes(server.pid) / 1e6)
  } finally {
    await server.stop()
    rmSync(dataDir, { recursive: true, force: true })
  }
}

async function measureYardstick(): Promise<void> {
  const server = await startYardstick()
  const token = 'a'.repeat(30)
  const body = claimBody({ userId: '@user0:bench.example', deviceId: 'DEVICE000000' })
  const load = { connections: CONNECTIONS, durationMs: DURATION_MS }
  await measureLoad(YARDSTICK.POST, server, {
    ...load,
    next: () => ({ method: 'POST', path: '/', body, token }),
  })
  await measureLoad(YARDSTICK.GET, server, { ...load, next: () => ({ method: 'GET', path: '/', token }) })
  await server.stop()
}

function claimBody(...from: readonly { readonly userId: string; readonly deviceId: string }[]): string {
  const wanted = from.map(({ userId, deviceId }) => [userId, { [deviceId]: 'signed_curve25519' }])
  return JSON.stringify({ one_time_keys: Object.fromEntries(wanted) })
}

/** One key per request, each time of the next device. */
async function measureClaims(server: Running, devices: readonly FilledDevice[]): Promise<void> {
  const bodies = devices.map((device) => claimBody(device))
  let n = 0
  await measureSingleClaims('claims of one key from many devices', server, () =>
    n < DEVICES * KEYS_EACH
      ? { method: 'POST', path: CLAIM, token: at(devices, n).token, body: at(bodies, n++) }
      : undefined,
  )
}

/** All connections claim from the same device. */
async function measureHotClaims(server: Running, hot: FilledDevice): Promise<void> {
  const body = claimBody(hot)
  let left = HOT_KEYS
  await measureSingleClaims(`claims of one key from one device, ${CONNECTIONS} claimers`, server, () =>
    left-- > 0 ? { method: 'POST', path: CLAIM, token: hot.token, body } : undefined,
  )
}

async function measureSingleClaims(name: string, server: Running, next: LoadOptions['next']): Promise<void> {
  const seen = new Set<string>()
  let asked = 0
  await measureLoad(name, server, {
    connections: CONNECTIONS,
    durationMs: DURATION_MS,
    next,
    onAnswer({ body }) {
      asked++
      noteKey(seen, body)
    },
  })
  if (seen.size !== asked) faults.push(`${name}: ${asked} claims got ${seen.size} distinct keys`)
}

async function measureBigClaims(server: Running, devices: readonly FilledDevice[]): Promise<void> {
  const size = 100
  const bodies = Array.from({ length: DEVICES / size }, (_, i) =>
    claimBody(...devices.slice(i * size, (i + 1) * size)),
  )
  const token = at(devices, 0).token
  let n = 0
  const requests = Math.floor((DEVICES * (KEYS_EACH - 2)) / size)
  const result = await runLoad({
    url: server.url,
    connections: 8,
    durationMs: DURATION_MS,
    next: () => (n < requests ? { method: 'POST', path: CLAIM, token, body: at(bodies, n++) } : undefined),
  })
  record(`keys claimed, ${size} devices a request`, 'per second', result.perSecond * size)
  const one = await Connection.open('127.0.0.1', Number(new URL(server.url).port))
  const began = performance.now()
  await one.send({ method: 'POST', path: CLAIM, token, body: claimBody(...devices) })
  record(`one claim for ${DEVICES} devices`, 'ms', performance.now() - began)
  one.close()
}

async function measureUploads(server: Running, devices: readonly FilledDevice[]): Promise<void> {
  let n = 0
  const bodies = devices.slice(0, 500).map(({ userId, deviceId }) => {
    const keys = Array.from({ length: KEYS_EACH }, (_, i) => makeKey(userId, deviceId, 1000 + i))
    const byName = keys.map((key) => [`signed_curve25519:${key.keyId}`, JSON.parse(key.json) as object])
    return JSON.stringify({ one_time_keys: Object.fromEntries(byName) })
  })
  const next = (): Request | undefined => {
    const i = n++
    return i < bodies.length
      ? {
          method: 'POST',
          path: '/_matrix/client/v3/keys/upload',
          token: at(devices, i).token,
          body: at(bodies, i),
        }
      : undefined
  }
  await measureLoad('uploads of 50 keys', server, { connections: 16, next })
}

async function measureIdle(server: Running, devices: readonly FilledDevice[]): Promise<void> {
  const connection = await Connection.open('127.0.0.1', Number(new URL(server.url).port))
  const sinces: Request[] = []
  for (const { token } of devices.slice(0, IDLE_POLLS)) {
    const { body } = await connection.send({ method: 'GET', path: '/_matrix/client/v3/sync', token })
    const since = (JSON.parse(body.toString()) as { next_batch: string }).next_batch
    sinces.push({ method: 'GET', path: `/_matrix/client/v3/sync?timeout=0&since=${since}`, token })
  }
  connection.close()
  let n = 0
  const next = (): Request => at(sinces, n++)
  await measureLoad('idle syncs', server, { connections: CONNECTIONS, durationMs: DURATION_MS, next })
  await measureLongPolls(server, sinces)
}

async function measureLongPolls(server: Running, sinces: readonly Request[]): Promise<void> {
  const before = residentBytes(server.pid)
  const polls = await Promise.all(
    sinces.map(() => Connection.open('127.0.0.1', Number(new URL(server.url).port))),
  )
  for (const [i, poll] of polls.entries()) {
    const request = at(sinces, i)
    poll.send({ ...request, path: request.path.replace('timeout=0', 'timeout=60000') }).catch(() => {})
  }
  // When a later request is answered, the server has read the polls.
  const fence = await Connection.open('127.0.0.1', Number(new URL(server.url).port))
  for (let i = 0; i < 50; i++) await fence.send(at(sinces, i))
  fence.close()
  record('an idle long-poll', 'kB', (residentBytes(server.pid) - before) / 1000 / sinces.length)
  for (const poll of polls) poll.close()
}

function noteKey(seen: Set<string>, body: Buffer): void {
  const [, key] = /"key":"([^"]+)"/.exec(body.toString('latin1')) ?? []
  if (key !== undefined) seen.add(key)
}

function at<T>(items: readonly T[], n: number): T {
  const item = items[n % items.length]
  if (item === undefined) throw new Error('an empty list')
  return item
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

function print(): void {
  const cpu = cpus()[0]?.model ?? 'unknown processor'
  console.log(
    `${new Date().toISOString().slice(0, 10)}, ${cpus().length} cores of ${cpu}, Node ${process.versions.node}`,
  )
  console.log(
    `medians of ${ROUNDS} rounds, ${DURATION_MS} ms each after ${WARM_UP_MS} ms of warm-up (min to max)\n`,
  )
  console.log('| measurement | median | range | share of the yardstick |')
  console.log('| --- | --- | --- | --- |')
  for (const { name, unit, values } of rows.values()) {
    const share = shareOfYardstick(name, values)
    const [low, high] = [Math.min(...values), Math.max(...values)]
    console.log(
      `| ${name} | ${format(median(values))} ${unit} | ${format(low)} to ${format(high)} | ${share} |`,
    )
  }
}

/** Ratio to bare Fastify with the same method: of throughput, or the inverse ratio of processor time. */
function shareOfYardstick(name: string, values: readonly number[]): string {
  if (!/^(claims of one key|idle syncs)/.test(name) || name.endsWith('p99')) return ''
  const yardstick = name.startsWith('idle') ? YARDSTICK.GET : YARDSTICK.POST
  const cpu = name.endsWith(', CPU')
  const own = median(values)
  const bare = median(rows.get(cpu ? `${yardstick}, CPU` : yardstick)?.values ?? [])
  return (cpu ? bare / own : own / bare).toFixed(2)
}

function format(value: number): string {
  return value >= 1000 ? Math.round(value).toLocaleString('en') : value.toFixed(value < 10 ? 2 : 1)
}
