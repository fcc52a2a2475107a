/**
 * Compares the server of this checkout with that of another one: the same requests over HTTP, in alternating slices, on
 * SQLite and on PostgreSQL.
 *
 *     npm run bench:compare -- --base ../base [--rounds 8] [--store sqlite] [--scale 1] [--json FILE]
 *
 * In every round both servers start over fresh copies of a database that their own code filled, and take turns slice by
 * slice; the ratio of a round is that of its sums. Exit code 1 when a ratio is certainly worse than the limit (--limit
 * 1.05), when a request fails, or when a key is issued twice.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { type PostgresCluster, startPostgresCluster } from '@latchkey/testing/postgres-cluster.ts'
import type { Fillers } from './lib/fill.ts'
import { Installations, type StoreKind, type Template } from './lib/installation.ts'
import { type Request, runLoad } from './lib/load.ts'
import { cpuMicroseconds, familyCpuMicroseconds, type Running } from './lib/process.ts'
import { pairedRatio, type Ratio } from './lib/ratio.ts'
import { ClaimedKeys } from './lib/requests.ts'
import { format, median, printMachine } from './lib/table.ts'
import { type Workload, WORKLOADS } from './lib/workloads.ts'

const { values: options } = parseArgs({
  options: {
    base: { type: 'string' },
    rounds: { type: 'string', default: '8' },
    /** Default: both. */
    store: { type: 'string' },
    /** Multiplies the requests of a slice. */
    scale: { type: 'string', default: '1' },
    limit: { type: 'string', default: '1.05' },
    json: { type: 'string' },
  },
})
if (options.base === undefined)
  throw new Error('--base DIR: expected another checkout with its packages installed')

const ROUNDS = Number(options.rounds)
const SCALE = Number(options.scale)
const LIMIT = Number(options.limit)
const WARM_UP_SLICES = 2
/** Even, so that each side is first equally often. */
const SLICES = 4
const FILLINGS = {
  many: { devices: 1000, keysEach: 50, fallback: true },
  hot: { devices: 1, keysEach: Math.ceil(20_000 * SCALE), fallback: true },
} as const
const CHECKOUTS = { base: resolve(options.base), here: resolve(import.meta.dirname, '..') } as const
const SIDES = ['base', 'here'] as const
const STORES = { sqlite: 'SQLite', postgres: 'PostgreSQL' } as const satisfies Record<StoreKind, string>

type Side = keyof typeof CHECKOUTS
/** Sums over the slices of a round. Processor time in microseconds. */
type Sums = { requests: number; seconds: number; serverUs: number; postgresUs: number }
type Pair<T> = Readonly<Record<Side, T>>
type Figure = {
  readonly workload: string
  readonly store: StoreKind
  readonly metric: 'requests per second' | 'server us per request' | 'PostgreSQL us per request'
  /** Indexed by round. */
  readonly base: number[]
  readonly here: number[]
}

const figures = new Map<string, Figure>()
const faults = new Set<string>()
const workDir = mkdtempSync(join(tmpdir(), 'latchkey-compare-'))
const cluster = await startPostgresCluster()
try {
  await main(cluster)
} finally {
  await cluster.stop()
  rmSync(workDir, { recursive: true, force: true })
}

async function main({ url, home }: PostgresCluster): Promise<void> {
  const postmaster = Number(readFileSync(join(home.data, 'postmaster.pid'), 'utf8').split('\n')[0])
  const installations = new Installations(workDir, url)
  const stores = (['sqlite', 'postgres'] as const).filter((store) => (options.store ?? store) === store)
  const templates: { readonly name: 'many' | 'hot'; readonly pair: Pair<Template> }[] = []
  for (const store of stores) {
    for (const name of ['many', 'hot'] as const) {
      const base = await fillBy('base', installations, store, name)
      templates.push({ name, pair: { base, here: await fillBy('here', installations, store, name) } })
    }
  }
  for (let round = 0; round < ROUNDS; round++) {
    for (const { name, pair } of templates) {
      const setup = { name, store: pair.base.store, processes: 1 }
      await installations.with(pair.base, { ...setup, checkout: CHECKOUTS.base }, ([base]) =>
        installations.with(pair.here, { ...setup, checkout: CHECKOUTS.here }, async ([here]) => {
          if (base === undefined || here === undefined) throw new Error('a server is missing')
          for (const workload of WORKLOADS.filter(({ template }) => template === name)) {
            await compare(workload, pair, { base, here }, { round, postmaster })
          }
        }),
      )
    }
    process.stderr.write(`round ${round + 1} of ${ROUNDS}\n`)
  }
  report()
}

/** By the checkout's own code, so that each server opens a database of its own schema. */
async function fillBy(
  side: Side,
  installations: Installations,
  store: StoreKind,
  name: 'many' | 'hot',
): Promise<Template> {
  const fillers = (await import(join(CHECKOUTS[side], 'bench/lib/fill.ts'))) as Fillers
  return installations.fill(store, `${side}_${name}`, FILLINGS[name], fillers)
}

async function compare(
  workload: Workload,
  templates: Pair<Template>,
  servers: Pair<Running>,
  { round, postmaster }: { readonly round: number; readonly postmaster: number },
): Promise<void> {
  const { store } = templates.base
  const count = Math.ceil(workload.count * SCALE)
  const sums: Pair<Sums> = { base: noSums(), here: noSums() }
  const claimed: Pair<ClaimedKeys> = { base: new ClaimedKeys(), here: new ClaimedKeys() }
  for (let slice = 0; slice < WARM_UP_SLICES + SLICES; slice++) {
    // A, B, B, A, ...: a drift of the machine within a round has the same effect on both.
    const order = (round + slice) % 2 === 0 ? SIDES : SIDES.toReversed()
    for (const side of order) {
      const server = servers[side]
      const requests = await workload.make(templates[side].devices, slice, count, server.url)
      const used = await runSlice(workload, requests, server, postmaster, claimed[side])
      if (slice >= WARM_UP_SLICES) add(sums[side], used)
    }
  }
  for (const side of SIDES) {
    const { requests, seconds, serverUs, postgresUs } = sums[side]
    note(workload, store, 'requests per second', side, requests / seconds)
    note(workload, store, 'server us per request', side, serverUs / requests)
    if (store === 'postgres') note(workload, store, 'PostgreSQL us per request', side, postgresUs / requests)
    const fault = workload.claims && claimed[side].fault(`${side}, ${STORES[store]}: ${workload.name}`)
    if (fault) faults.add(fault)
  }
}

async function runSlice(
  { name, connections, claims }: Workload,
  requests: Request[],
  { url, pid }: Running,
  postmaster: number,
  claimed: ClaimedKeys,
): Promise<Sums> {
  let n = 0
  const [serverBefore, postgresBefore] = [cpuMicroseconds(pid), familyCpuMicroseconds(postmaster)]
  const result = await runLoad({
    url,
    connections,
    awake: false,
    next: () => requests[n++],
    onAnswer: ({ body }) => claims && claimed.note(body),
  })
  if (result.failures > 0) faults.add(`${name}: ${result.failures} requests failed`)
  return {
    requests: result.requests,
    seconds: result.seconds,
    serverUs: cpuMicroseconds(pid) - serverBefore,
    postgresUs: familyCpuMicroseconds(postmaster) - postgresBefore,
  }
}

function noSums(): Sums {
  return { requests: 0, seconds: 0, serverUs: 0, postgresUs: 0 }
}

function add(sums: Sums, used: Sums): void {
  for (const name of ['requests', 'seconds', 'serverUs', 'postgresUs'] as const) sums[name] += used[name]
}

function note(
  { name: workload }: Workload,
  store: StoreKind,
  metric: Figure['metric'],
  side: Side,
  value: number,
): void {
  const key = `${store} ${metric} ${workload}`
  const figure = figures.get(key) ?? { workload, store, metric, base: [], here: [] }
  figures.set(key, figure)
  figure[side].push(value)
}

function report(): void {
  printMachine()
  console.log(
    `${ROUNDS} rounds of ${SLICES} alternating slices each; medians (min to max); ratio here / base with its 95 % interval\n`,
  )
  const compared = [...figures.values()].map((figure) => ({
    ...figure,
    ...pairedRatio(figure.base, figure.here),
  }))
  for (const [heading, rows] of Map.groupBy(compared, ({ store, metric }) => `${STORES[store]}, ${metric}`)) {
    console.log(`| ${heading} | base | here | ratio | |\n| --- | --- | --- | --- | --- |`)
    for (const row of rows) {
      const interval = `${row.ratio.toFixed(3)} (${row.low.toFixed(3)} to ${row.high.toFixed(3)})`
      console.log(
        `| ${row.workload} | ${spread(row.base)} | ${spread(row.here)} | ${interval} | ${verdict(row)} |`,
      )
    }
    console.log()
  }
  if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(compared, undefined, 2)}\n`)
  for (const fault of faults) console.error(fault)
  if (faults.size > 0 || compared.some((row) => verdict(row) === 'WORSE')) process.exitCode = 1
}

function spread(values: readonly number[]): string {
  return `${format(median(values))} (${format(Math.min(...values))} to ${format(Math.max(...values))})`
}

/** Certainly past the limit, certainly different, or neither. */
function verdict({ metric, low, high }: Figure & Ratio): string {
  const [best, worst] = metric === 'requests per second' ? [1 / high, 1 / low] : [low, high]
  if (best > LIMIT) return 'WORSE'
  if (worst < 1) return 'better'
  return worst <= LIMIT ? 'within the limit' : 'uncertain'
}
