/**
 * Claims, uploads and idle syncs per second on SQLite and on PostgreSQL with 1, 2 and 4 processes, in one run with a
 * bare Fastify server; then open-loop latencies at half of the measured throughput. `npm run bench:postgres`.
 *
 * The load generator, the servers and PostgreSQL share all cores, so this does not show the gain of more processes on
 * separate cores. A run with failures, duplicate keys or false misses exits 1.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startPostgresCluster } from '@latchkey/testing/postgres-cluster.ts'
import type { FilledDevice } from './lib/fill.ts'
import { Installations, type Setup, type Template } from './lib/installation.ts'
import { type Answer, type Request, runLoad } from './lib/load.ts'
import { runOpenLoop } from './lib/open-loop.ts'
import { cpuMicroseconds, familyCpuMicroseconds, type Running, startYardstick } from './lib/process.ts'
import { ClaimedKeys, claimOf, idleSyncs, uploadOf } from './lib/requests.ts'
import { Figures, printMachine } from './lib/table.ts'

const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 3)
const DURATION_MS = Number(process.env['BENCH_MS'] ?? 3000)
/** Warm-up requests per process; code that has run less is several times slower. */
const WARM_UP = { claims: 10_000, uploads: 500 }
const DEVICES = Number(process.env['BENCH_DEVICES'] ?? 4000)
const KEYS_EACH = 50
/** More keys than each store issues in one measurement. */
const HOT_KEYS = { sqlite: 160_000, postgres: 120_000 } as const
/** Connections to all processes together, so that every setup gets the same load. */
const CONNECTIONS = 128
const UPLOADERS = 16
const HOT_CLAIMERS = 64
const SYNCED = 1000
const YARDSTICK = 'bare Fastify'

const SETUPS: readonly Setup[] = [
  { name: 'SQLite', store: 'sqlite', processes: 1 },
  { name: 'SQLite, no fence', store: 'sqlite', processes: 1, flags: ['--fence', 'off'] },
  { name: 'PostgreSQL, 1 process', store: 'postgres', processes: 1 },
  { name: '1 process, no fence', store: 'postgres', processes: 1, flags: ['--fence', 'off'] },
  { name: '2 processes', store: 'postgres', processes: 2 },
  { name: '4 processes', store: 'postgres', processes: 4 },
]

const ON_POSTGRES = new Set(SETUPS.filter(({ store }) => store === 'postgres').map(({ name }) => name))

type Load = {
  readonly name: string
  /** Total over all processes. */
  readonly connections: number
  /** Requests before the measurement, per process. */
  readonly warmUp: number
  readonly next: () => Request | undefined
  readonly onAnswer?: (answer: Answer) => void
}

const perSecond = new Figures()
const processorTime = new Figures()
const latencies = new Figures()
const faults = new Set<string>()

const workDir = mkdtempSync(join(tmpdir(), 'latchkey-bench-'))
const cluster = await startPostgresCluster()
const [firstLine] = readFileSync(join(cluster.home.data, 'postmaster.pid'), 'utf8').split('\n')
const postmaster = Number(firstLine)
try {
  await main()
} finally {
  await cluster.stop()
  rmSync(workDir, { recursive: true, force: true })
}

async function main(): Promise<void> {
  const installations = new Installations(workDir, cluster.url)
  const templates: Template[] = []
  for (const store of ['sqlite', 'postgres'] as const) {
    for (const [name, devices, keysEach] of [
      ['many', DEVICES, KEYS_EACH],
      ['hot', 1, HOT_KEYS[store]],
    ] as const) {
      const began = performance.now()
      templates.push(await installations.fill(store, name, { devices, keysEach, fallback: true }))
      const seconds = ((performance.now() - began) / 1000).toFixed(1)
      process.stderr.write(`filled ${store} "${name}" in ${seconds} s\n`)
    }
  }
  for (let round = 0; round < ROUNDS; round++) {
    await measureYardstick()
    for (const setup of SETUPS) {
      for (const template of templates.filter(({ store }) => store === setup.store)) {
        const measureTemplate = template.name === 'hot' ? measureHot : measureMany
        await installations.with(template, setup, (servers) =>
          measureTemplate(setup, servers, template.devices),
        )
      }
    }
    process.stderr.write(`round ${round + 1} of ${ROUNDS}\n`)
  }
  print()
}

async function measureYardstick(): Promise<void> {
  const server = await startYardstick({ pinned: false })
  const device = { userId: '@user0:bench.example', deviceId: 'DEVICE000000', token: 'a'.repeat(30) }
  const post = { ...claimOf(device), path: '/' }
  const get: Request = { method: 'GET', path: '/', token: device.token }
  for (const request of [post, get]) {
    const name = `${YARDSTICK}, ${request.method}`
    await measure(YARDSTICK, [server], {
      name,
      connections: CONNECTIONS,
      warmUp: WARM_UP.claims,
      next: () => request,
    })
  }
  await server.stop()
}

async function measureMany(
  { name: column }: Setup,
  servers: readonly Running[],
  devices: readonly FilledDevice[],
): Promise<void> {
  let n = 0
  const claims = devices.map((device) => claimOf(device))
  const limit = devices.length * KEYS_EACH
  await measureClaims(column, servers, {
    name: 'claims from many devices',
    connections: CONNECTIONS,
    next: () => (n < limit ? claims[n++ % claims.length] : undefined),
  })
  const [first] = servers
  if (first === undefined) return
  const syncs = await idleSyncs(first.url, devices.slice(0, SYNCED))
  let synced = 0
  const next = (): Request | undefined => syncs[synced++ % syncs.length]
  await measure(column, servers, {
    name: 'idle syncs',
    connections: CONNECTIONS,
    warmUp: WARM_UP.claims,
    next,
  })
  // Prepared in advance, because creating them costs about as much as storing them. The measurement ends with the last.
  const count = WARM_UP.uploads * servers.length + Math.ceil(DURATION_MS * 1.3)
  const uploads = Array.from({ length: count }, (_, i) => uploadAt(devices, i))
  await measure(column, servers, {
    name: 'uploads of 50 keys',
    connections: UPLOADERS,
    warmUp: WARM_UP.uploads,
    next: () => uploads.pop(),
  })
}

function uploadAt(devices: readonly FilledDevice[], i: number): Request {
  const device = devices[i % devices.length]
  if (device === undefined) throw new Error('no devices')
  return uploadOf(device, KEYS_EACH, 100_000 + i * KEYS_EACH)
}

async function measureHot(
  { name: column, store }: Setup,
  servers: readonly Running[],
  [hot]: readonly FilledDevice[],
): Promise<void> {
  if (hot === undefined) throw new Error('nothing was filled')
  const claim = claimOf(hot)
  let n = 0
  await measureClaims(column, servers, {
    name: `claims from one device, ${HOT_CLAIMERS} claimers`,
    connections: HOT_CLAIMERS,
    next: () => (n++ < HOT_KEYS[store] ? claim : undefined),
  })
}

async function measureClaims(
  column: string,
  servers: readonly Running[],
  load: Pick<Load, 'name' | 'connections' | 'next'>,
): Promise<void> {
  const claimed = new ClaimedKeys()
  const onAnswer = ({ body }: Answer): void => claimed.note(body)
  await measure(column, servers, { ...load, warmUp: WARM_UP.claims, onAnswer })
  const fault = claimed.fault(`${column}: ${load.name}`)
  if (fault !== undefined) faults.add(fault)
}

/** Measures throughput with every connection busy, then latencies at half of that throughput. */
async function measure(column: string, servers: readonly Running[], load: Load): Promise<void> {
  const { name, connections, warmUp, next, onAnswer = () => {} } = load
  const urls = servers.map(({ url }) => url)
  const closed = { next, onAnswer, awake: false }
  const warmedUp = await Promise.all(
    urls.map((url) => {
      let cold = warmUp
      const upTo = (): Request | undefined => (cold-- > 0 ? next() : undefined)
      return runLoad({ ...closed, url, connections: connections / urls.length, next: upTo })
    }),
  )
  const before = usedBy(servers)
  const busy = await runLoad({ ...closed, url: urls, connections, durationMs: DURATION_MS })
  const after = usedBy(servers)
  if (busy.requests === 0) throw new Error(`${column}: ${name}: the warm-up used all requests`)
  perSecond.add(name, column, busy.perSecond)
  processorTime.add(`${name}, server`, column, (after.servers - before.servers) / busy.requests)
  if (ON_POSTGRES.has(column)) {
    processorTime.add(`${name}, PostgreSQL`, column, (after.postgres - before.postgres) / busy.requests)
  }
  const half = await runOpenLoop({
    urls,
    perSecond: busy.perSecond / 2,
    durationMs: DURATION_MS,
    next,
    onAnswer,
  })
  const failures = [...warmedUp, busy, half].reduce((sum, run) => sum + run.failures, 0)
  if (failures > 0) faults.add(`${column}: ${name}: ${failures} requests failed`)
  if (half.ranOut) {
    faults.add(`${column}: ${name}: the requests ran out before the latencies were measured`)
    return
  }
  latencies.add(`${name}, requests per second`, column, busy.perSecond / 2)
  latencies.add(`${name}, p50 ms`, column, half.p50Ms)
  latencies.add(`${name}, p95 ms`, column, half.p95Ms)
  latencies.add(`${name}, p99 ms`, column, half.p99Ms)
}

function usedBy(servers: readonly Running[]): { readonly servers: number; readonly postgres: number } {
  return {
    servers: servers.reduce((sum, { pid }) => sum + cpuMicroseconds(pid), 0),
    postgres: familyCpuMicroseconds(postmaster),
  }
}

function print(): void {
  printMachine()
  console.log(
    `medians of ${ROUNDS} rounds (min to max); ${DEVICES} devices with ${KEYS_EACH} keys each; ` +
      'the load generator, the servers and PostgreSQL share these cores\n',
  )
  const columns = [YARDSTICK, ...SETUPS.map(({ name }) => name)]
  perSecond.print('requests per second', columns)
  console.log('Processor time per request in microseconds, summed over all processes:\n')
  processorTime.print('microseconds', columns)
  console.log('Open-loop latencies at half of that throughput, from the time each request was due:\n')
  latencies.print('at half load', columns)
  for (const fault of faults) console.error(fault)
  if (faults.size > 0) process.exitCode = 1
  else console.log('No failed requests, no duplicate keys, no false misses.')
}
