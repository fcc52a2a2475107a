/**
 * The soak: random mixed load against several processes over one PostgreSQL, or one over SQLite. An independent checker
 * (lib/history.ts) then checks all requests and answers. Exits 1 if a rule was broken.
 *
 *     npm run soak -- --seconds 300 --processes 4 --kill
 *
 * PostgreSQL is a temporary cluster, or a schema on the server that LATCHKEY_TEST_POSTGRES names.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { startPostgresCluster } from '@latchkey/testing/postgres-cluster.ts'
import { type Fleet, startFleet } from './lib/fleet.ts'
import { checkHistory, type Exchange, type Violation } from './lib/history.ts'
import { seeded } from './lib/random.ts'
import { readExchanges, Recorder } from './lib/recorder.ts'
import { SoakLoad } from './lib/soak-load.ts'

const PROGRESS_MS = 5000
const KILL_EVERY_MS = [1500, 4000] as const
const SHOWN_TEXT = 1500
const SHOWN_UNAVAILABLE = 5
const SHOWN_LINES = 20

const { values: options } = parseArgs({
  options: {
    seconds: { type: 'string', default: '300' },
    processes: { type: 'string', default: '4' },
    clients: { type: 'string', default: '24' },
    store: { type: 'string', default: 'postgres' },
    seed: { type: 'string' },
    kill: { type: 'boolean', default: false },
    /** Runs every second process from another checkout: an older version over the same database. */
    'other-checkout': { type: 'string' },
    /** File in which the history is kept. */
    history: { type: 'string' },
    /** Checks this history file instead of recording one. */
    check: { type: 'string' },
  },
})

process.exitCode = options.check === undefined ? await soak() : await checkRecorded(options.check)

async function soak(): Promise<number> {
  const seed = Number(options.seed ?? Math.floor(Math.random() * 2 ** 31))
  const seconds = Number(options.seconds)
  const postgres = options.store === 'postgres'
  const processes = postgres ? Number(options.processes) : 1
  const kill = options.kill ? ', random kills' : ''
  console.log(
    `${options.store}, ${processes} process(es), ${options.clients} clients, ${seconds} s${kill}, --seed ${seed}`,
  )
  const directory = mkdtempSync(join(tmpdir(), 'latchkey-soak-'))
  const history = options.history ?? join(directory, 'history')
  const given = process.env['LATCHKEY_TEST_POSTGRES']
  const cluster = postgres && !given ? await startPostgresCluster() : undefined
  const database = postgres ? (cluster?.url ?? given) : undefined
  let failed = true
  try {
    const otherCheckout = options['other-checkout']
    const fleet = await startFleet({
      directory,
      processes,
      ...(database !== undefined && { database }),
      ...(otherCheckout !== undefined && { otherCheckout }),
    })
    let silent = 0
    try {
      silent = await run(fleet, history, seed, seconds)
    } finally {
      await fleet.stop()
      for (const line of fleet.logged.slice(0, SHOWN_LINES)) console.log(line.slice(0, SHOWN_TEXT))
    }
    // The checker permits them, but without kills they are failures.
    if (silent > 0 && !options.kill)
      console.error(`${silent} requests had no answer or 503 although no process was killed`)
    const code = Math.max(await checkRecorded(history), silent > 0 && !options.kill ? 1 : 0)
    failed = code !== 0
    return code
  } finally {
    await cluster?.stop()
    if (failed) console.error(`History file: ${history}`)
    else rmSync(directory, { recursive: true, force: true })
  }
}

/** Returns the number of requests without an answer or with 503. */
async function run(fleet: Fleet, history: string, seed: number, seconds: number): Promise<number> {
  const random = seeded(seed)
  const recorder = new Recorder(history, fleet, random)
  const load = new SoakLoad(recorder, random)
  await load.begin()
  const began = performance.now()
  const isRunning = (): boolean => performance.now() - began < seconds * 1000
  const progress = setInterval(() => {
    const { requests, unanswered, unavailable } = recorder.counts
    const elapsed = Math.round((performance.now() - began) / 1000)
    console.log(
      `${elapsed} s: ${requests} requests, ${unanswered} without an answer, ${unavailable} answered 503, ${fleet.kills} kills`,
    )
  }, PROGRESS_MS)
  try {
    const clients = Array.from({ length: Number(options.clients) }, () => load.work(isRunning))
    await Promise.all([...clients, options.kill ? killRandomly(fleet, seed, isRunning) : undefined])
    await load.end()
    const { unanswered, unavailable } = recorder.counts
    return unanswered + unavailable
  } finally {
    clearInterval(progress)
    await recorder.close()
  }
}

/** Uses a separate generator: its draws depend on the clock and must not change those of the load. */
async function killRandomly(fleet: Fleet, seed: number, isRunning: () => boolean): Promise<void> {
  const random = seeded(seed ^ 0x5eed)
  const [least, most] = KILL_EVERY_MS
  while (isRunning()) {
    await sleep(least + random() * (most - least))
    if (isRunning()) await fleet.killOne(random)
  }
}

/** Checks a history and prints its violations. Returns the exit code. */
async function checkRecorded(history: string): Promise<number> {
  const exchanges: Exchange[] = []
  for await (const exchange of readExchanges(history)) exchanges.push(exchange)
  const began = performance.now()
  const { violations, seen } = checkHistory(exchanges)
  const seconds = ((performance.now() - began) / 1000).toFixed(1)
  console.log(
    `checked in ${seconds} s: ${seen.requests} requests, ${seen.unanswered} without an answer, ${seen.keys} keys, ${seen.issued} issued, ` +
      `${seen.misses} claims that returned a fallback key or nothing, ${seen.counts} counts, ${seen.messages} messages`,
  )
  const unavailable = exchanges.filter(({ status }) => status === 503)
  for (const { n, process: number, method, path, answer } of unavailable.slice(0, SHOWN_UNAVAILABLE)) {
    console.log(`503 to #${n}, process ${number}: ${method} ${path}: ${answer}`)
  }
  const rules = [...Map.groupBy(violations, ({ rule }) => rule)]
  for (const [rule, found] of rules) console.error(`rule "${rule}" broken ${found.length} times`)
  // Shows each rule's shortest violation, which is its first.
  for (const [, [violation]] of rules) if (violation !== undefined) show(violation, exchanges)
  if (violations.length === 0) console.log('no rule broken')
  return violations.length === 0 ? 0 : 1
}

function show({ rule, text, requests }: Violation, exchanges: readonly Exchange[]): void {
  console.error(`\n${rule}: ${text}`)
  const wanted = new Set(requests)
  for (const exchange of exchanges) {
    if (!wanted.has(exchange.n)) continue
    const { n, begin, end, process: number, method, path, body, status, answer } = exchange
    console.error(`  #${n} [${begin}, ${end ?? 'no answer'}] process ${number}: ${method} ${path}`)
    if (body !== undefined) console.error(`    ${body.slice(0, SHOWN_TEXT)}`)
    if (status !== undefined) console.error(`    ${status} ${answer?.slice(0, SHOWN_TEXT)}`)
  }
}
