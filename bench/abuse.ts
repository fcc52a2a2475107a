/**
 * A victim's claims next to one account that asks for as much as it can on 8 connections, at default limits (issue 11,
 * C1): within the attacker's burst, and after its budget is used up; compared with the victim alone and next to the
 * cheapest request, in alternating rounds. `npm run bench:abuse` prints medians for SQLite, `-- --store postgres` for
 * PostgreSQL. The latencies carry the noise of the machine, so compare the rows of one run.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { startPostgresCluster } from '@latchkey/testing/postgres-cluster.ts'
import { type Attack, ATTACKS, CHEAP, trackRequest, waitingSync } from './lib/attacks.ts'
import { fill, type FilledDevice, fillPostgres } from './lib/fill.ts'
import { Connection, type Request, runLoad } from './lib/load.ts'
import { cpuMicroseconds, type Running, startLatchkey } from './lib/process.ts'
import { claimOf } from './lib/requests.ts'
import { Figures, printMachine } from './lib/table.ts'

const DURATION_MS = Number(process.env['BENCH_MS'] ?? 3000)
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 2)
const CONNECTIONS = 8
const TARGETS = 300
const OBSERVERS = 600
const FILLING = { devices: TARGETS + OBSERVERS + 200, keysEach: 100, fallback: true }
/** Longest time for which an attacker uses its budget up. Cheap requests never do. */
const DRAIN_MS = Number(process.env['BENCH_DRAIN_MS'] ?? 6000)
const COLUMNS = ['p50 ms', 'p99 ms', 'claims/s', 'server CPU %', '200', '429', 'other']

const { values: options } = parseArgs({ options: { store: { type: 'string', default: 'sqlite' } } })
const figures = new Figures()
const directory = mkdtempSync(join(tmpdir(), 'latchkey-abuse-'))
const cluster = options.store === 'postgres' ? await startPostgresCluster() : undefined
try {
  const devices = cluster
    ? await fillPostgres({ database: cluster.url, ...FILLING })
    : await fill({ dataDir: directory, ...FILLING })
  const flags = [
    '--limits',
    'on',
    '--security-log',
    join(directory, 'security.log'),
    ...(cluster ? ['--database', cluster.url] : []),
  ]
  const server = await startLatchkey(directory, flags)
  try {
    await run(server, devices)
  } finally {
    await server.stop()
  }
} finally {
  await cluster?.stop()
  rmSync(directory, { recursive: true, force: true })
}
printMachine()
figures.print(`next to the victim (${options.store})`, COLUMNS)

async function run(server: Running, devices: readonly FilledDevice[]): Promise<void> {
  const targets = devices.slice(0, TARGETS)
  const observers = devices.slice(TARGETS, TARGETS + OBSERVERS)
  // Each victim and each attacker has an account of its own, with a full budget.
  const fresh = devices.slice(TARGETS + OBSERVERS)
  const take = (): FilledDevice => {
    const device = fresh.pop()
    if (device === undefined) throw new Error('too few devices were filled')
    return device
  }
  let n = 0
  const measure = async (row: string, attack?: Attack, attacker?: FilledDevice): Promise<void> => {
    const victim = take()
    const before = cpuMicroseconds(server.pid)
    const began = performance.now()
    const next = (): Request => claimOf(targets[n++ % targets.length] ?? victim, victim.token)
    const [own, statuses] = await Promise.all([
      runLoad({ url: server.url, connections: 1, durationMs: DURATION_MS, next }),
      attack && attacker ? attackFor(server.url, attack, attacker, DURATION_MS) : new Map<number, number>(),
    ])
    const seconds = (performance.now() - began) / 1000
    const count = (status: number): number => statuses.get(status) ?? 0
    const all = [...statuses.values()].reduce((sum, value) => sum + value, 0)
    figures.add(row, 'p50 ms', own.p50Ms)
    figures.add(row, 'p99 ms', own.p99Ms)
    figures.add(row, 'claims/s', own.perSecond)
    figures.add(row, 'server CPU %', (cpuMicroseconds(server.pid) - before) / 10_000 / seconds)
    figures.add(row, '200', count(200))
    figures.add(row, '429', count(429))
    figures.add(row, 'other', all - count(200) - count(429))
    if (own.failures > 0) figures.add(row, 'victim refused', own.failures)
  }
  const warmUp = take()
  await runLoad({
    url: server.url,
    connections: 4,
    durationMs: DURATION_MS,
    next: () => claimOf(targets[n++ % targets.length] ?? warmUp, warmUp.token),
  })
  for (let round = 0; round < ROUNDS; round++) {
    await measure('no one')
    await measure(CHEAP.name, CHEAP, take())
    for (const attack of ATTACKS) {
      const attacker = take()
      const stop = attack.observed ? await observe(server.url, observers, attacker.userId) : undefined
      await measure(attack.name, attack, attacker)
      if (attack.perSecond === undefined) {
        await attackFor(server.url, attack, attacker, DRAIN_MS, (status) => status === 429)
        await measure(`${attack.name}, budget used up`, attack, attacker)
      }
      stop?.()
    }
    await measure('no one, again')
  }
}

/** Sends requests for a time, or until an answer ends it. Returns the number of answers by status. */
async function attackFor(
  url: string,
  { request, connections = CONNECTIONS, perSecond }: Attack,
  attacker: FilledDevice,
  durationMs: number,
  isLast: (status: number) => boolean = () => false,
): Promise<ReadonlyMap<number, number>> {
  const statuses = new Map<number, number>()
  const next = request(attacker)
  const begin = performance.now()
  let isOver = false
  const worker = async (): Promise<void> => {
    let connection = await Connection.to(url)
    for (let sent = 0; !isOver && performance.now() < begin + durationMs; sent++) {
      const answer = await connection.send(next()).catch(() => undefined)
      // The server closes the connection after a refusal of a body that is too large.
      if (answer === undefined) connection = await Connection.to(url)
      const status = answer?.status ?? 0
      statuses.set(status, (statuses.get(status) ?? 0) + 1)
      isOver ||= isLast(status)
      const due = perSecond === undefined ? 0 : begin + ((sent + 1) / perSecond) * 1000
      if (due > performance.now()) await sleep(due - performance.now())
    }
    connection.close()
  }
  await Promise.all(Array.from({ length: connections }, worker))
  return statuses
}

/** Users who track a user and wait for a change. Returns the function that ends them. */
async function observe(url: string, observers: readonly FilledDevice[], userId: string): Promise<() => void> {
  const over = new AbortController()
  const open: Connection[] = []
  for (const observer of observers) {
    const connection = await Connection.to(url)
    open.push(connection)
    await connection.send(trackRequest(observer, userId))
    const sync = async (since?: string): Promise<string> => {
      const { body } = await connection.send(waitingSync(observer, since))
      return (JSON.parse(body.toString()) as { next_batch: string }).next_batch
    }
    const wait = async (): Promise<void> => {
      for (let since = await sync(); !over.signal.aborted; ) since = await sync(since)
    }
    // Ends when the connection is closed.
    wait().catch(() => {})
  }
  return () => {
    over.abort()
    for (const connection of open) connection.close()
  }
}
