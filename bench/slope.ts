/**
 * Cost of a claim and of a stored key at 10 000, 100 000 and 1 000 000 keys on SQLite and on PostgreSQL, one process
 * each. `npm run bench:slope`. At every size, claims go to the same number of devices, spread over all of them;
 * otherwise the large size would have cold devices and the small one warm ones. Bytes per key include all tables and
 * indexes, also accounts, devices and sessions. A run with failures, duplicate keys or false misses exits 1.
 */
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startPostgresCluster } from '@latchkey/testing/postgres-cluster.ts'
import type { FilledDevice } from './lib/fill.ts'
import { Installations, query, type StoreKind, type Template } from './lib/installation.ts'
import { type Request, runLoad } from './lib/load.ts'
import { cpuMicroseconds, type Running } from './lib/process.ts'
import { ClaimedKeys, claimOf } from './lib/requests.ts'
import { Figures, printMachine } from './lib/table.ts'

const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 3)
const SIZES = (process.env['BENCH_SIZES'] ?? '10000,100000,1000000').split(',').map(Number)
const CLAIMS = Number(process.env['BENCH_CLAIMS'] ?? 6000)
const WARM_UP_CLAIMS = CLAIMS / 4
const ALONE_CLAIMS = CLAIMS / 20
const KEYS_EACH = 50
const CLAIMERS = 64
const STORES = { sqlite: 'SQLite', postgres: 'PostgreSQL' } as const satisfies Record<StoreKind, string>

type Filled = Template & { readonly keys: number }

const figures = new Figures()
const faults = new Set<string>()

const workDir = mkdtempSync(join(tmpdir(), 'latchkey-slope-'))
const cluster = await startPostgresCluster()
try {
  await main()
} finally {
  await cluster.stop()
  rmSync(workDir, { recursive: true, force: true })
}

async function main(): Promise<void> {
  const installations = new Installations(workDir, cluster.url)
  const filled: Filled[] = []
  for (const keys of SIZES) {
    for (const store of ['sqlite', 'postgres'] as const)
      filled.push(await fillOne(installations, store, keys))
  }
  // Every round measures all sizes, so that a change of the machine's speed does not look like a slope.
  for (let round = 0; round < ROUNDS; round++) {
    for (const template of filled) {
      const setup = { name: template.name, store: template.store, processes: 1 }
      await installations.with(template, setup, async ([server]) => {
        if (server !== undefined) await measure(template, server)
      })
    }
    process.stderr.write(`round ${round + 1} of ${ROUNDS}\n`)
  }
  print()
}

async function fillOne(installations: Installations, store: StoreKind, keys: number): Promise<Filled> {
  const began = performance.now()
  const filling = { devices: Math.ceil(keys / KEYS_EACH), keysEach: KEYS_EACH, fallback: true }
  const template = await installations.fill(store, `keys${keys}`, filling)
  const bytes =
    store === 'sqlite'
      ? statSync(join(installations.directoryOf(template.name), 'latchkey.db')).size
      : await tableBytes(installations.databaseOf(template.name))
  figures.add('bytes per key at rest', columnOf(store, keys), bytes / keys)
  const seconds = ((performance.now() - began) / 1000).toFixed(1)
  process.stderr.write(`filled ${store} with ${keys} keys in ${seconds} s\n`)
  return { ...template, keys }
}

/** Size of all tables of the schema with indexes and TOAST. The template was vacuumed. */
async function tableBytes(database: string): Promise<number> {
  const [row] = await query<{ bytes: string }>(
    database,
    `select sum(pg_total_relation_size(pg_class.oid)) as bytes from pg_class
     where relkind = 'r' and relnamespace = current_schema()::regnamespace`,
  )
  return Number(row?.bytes)
}

async function measure({ store, keys, devices }: Filled, server: Running): Promise<void> {
  const column = columnOf(store, keys)
  const claimed = new ClaimedKeys()
  const requests = claimsOver(spread(devices))
  const run = async (claims: number, connections: number) => {
    let left = Math.floor(claims)
    const next = (): Request | undefined => (left-- > 0 ? requests() : undefined)
    const result = await runLoad({
      url: server.url,
      connections,
      next,
      onAnswer: ({ body }) => claimed.note(body),
      awake: false,
    })
    if (result.failures > 0) faults.add(`${column}: ${result.failures} claims failed`)
    return result
  }
  await run(WARM_UP_CLAIMS, CLAIMERS)
  const before = cpuMicroseconds(server.pid)
  const together = await run(CLAIMS, CLAIMERS)
  figures.add('time per claim, 64 claimers, us', column, 1e6 / together.perSecond)
  figures.add(
    'of it processor time of the server, us',
    column,
    (cpuMicroseconds(server.pid) - before) / CLAIMS,
  )
  figures.add('p50 of 64 claimers, ms', column, together.p50Ms)
  figures.add('p99 of 64 claimers, ms', column, together.p99Ms)
  figures.add('p50 of one claimer alone, ms', column, (await run(ALONE_CLAIMS, 1)).p50Ms)
  const fault = claimed.fault(column)
  figures.add('false misses and duplicates', column, claimed.missing)
  if (fault !== undefined) faults.add(fault)
}

/** As many devices as the smallest size has, evenly spread. */
function spread(devices: readonly FilledDevice[]): readonly FilledDevice[] {
  const wanted = Math.ceil(Math.min(...SIZES) / KEYS_EACH)
  const every = Math.max(1, Math.floor(devices.length / wanted))
  return devices.filter((_, i) => i % every === 0).slice(0, wanted)
}

/** Claims of devices in an order that strides through the whole database, fewer per device than it has keys. */
function claimsOver(devices: readonly FilledDevice[]): () => Request {
  // A step that is coprime to the number of devices visits all of them.
  let step = Math.floor(devices.length * 0.618) | 1
  while (divisor(step, devices.length) > 1) step += 2
  let at = 0
  return () => {
    at = (at + step) % devices.length
    const device = devices[at]
    if (device === undefined) throw new Error('no devices')
    return claimOf(device)
  }
}

function divisor(a: number, b: number): number {
  return b === 0 ? a : divisor(b, a % b)
}

function columnOf(store: StoreKind, keys: number): string {
  return `${STORES[store]}, ${keys.toLocaleString('en')}`
}

function print(): void {
  printMachine()
  console.log(
    `medians of ${ROUNDS} rounds (min to max); ${KEYS_EACH} keys per device, ${CLAIMS} claims; the load ` +
      'generator, the server and PostgreSQL share these cores\n',
  )
  for (const store of ['sqlite', 'postgres'] as const) {
    figures.print(
      'keys at rest',
      SIZES.map((keys) => columnOf(store, keys)),
    )
  }
  for (const fault of faults) console.error(fault)
  if (faults.size > 0) process.exitCode = 1
}
