/**
 * The frame of the crash tests on PostgreSQL: a cluster, server processes that reach it through proxies of their own,
 * accounts, and a ledger. A round is traffic, a fault in the middle of it, traffic again, and then both promises checked:
 * no key issued twice, nothing acknowledged lost.
 */
import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import {
  type ClusterOptions,
  type PostgresCluster,
  startPostgresCluster,
} from '@latchkey/testing/postgres-cluster.ts'
import { TcpProxy } from '@latchkey/testing/tcp-proxy.ts'
import { checkAll, registerAll } from '../crash/check.ts'
import { Ledger } from '../crash/ledger.ts'
import { type Device, send } from '../crash/operations.ts'
import { type ServerProcess, startProcess } from '@latchkey/testing/server-process.ts'
import { within } from '@latchkey/testing/within.ts'
import { Service } from './service.ts'
import { Traffic } from './traffic.ts'

/** How often each fault happens. */
export const ROUNDS = Number(process.env['CRASH_ROUNDS'] ?? 2)

export type ScenarioOptions = {
  /** How many server processes. Default: 2. */
  readonly servers?: number
  readonly cluster?: ClusterOptions
  /** For the servers: `{ LATCHKEY_DATABASE_CONNECTIONS: '4' }`. */
  readonly environment?: Readonly<Record<string, string>>
  /** For one server, by its number, beside the usual ones: `['--fence-dir', '/mnt/0']`. */
  readonly flags?: (n: number) => readonly string[]
  /** How a server is started. Default: as a process of its own. */
  readonly start?: (dataDir: string, database: string, n: number) => Promise<ServerProcess>
  /** Whether requests may end without an answer. Default: no. */
  readonly serversDie?: boolean
  /** Whether the fence is to rise, which the test looks at by itself. Default: no, and it is looked at in the end. */
  readonly raises?: boolean
}

/** A server process, its data directory, and the network between it and the database. */
export type ServerNode = { server: ServerProcess; readonly dataDir: string; readonly proxy: TcpProxy }

/** Answers before the fault, at most: it comes at any moment of what goes on. */
const MAX_ANSWERS_BEFORE = 80
/** Answers after it: the traffic flows again. */
const ANSWERS_AFTER = 60
const READY_WITHIN_MS = 30_000
const LOOK_EVERY_MS = 50
const LONG_POLL_MS = 30_000

/** Runs a scenario and ends everything that belongs to it. When it fails the test's report has what the servers logged. */
export async function inScenario(
  t: TestContext,
  options: ScenarioOptions,
  run: (scenario: Scenario) => Promise<void>,
): Promise<void> {
  const scenario = await Scenario.open(options)
  try {
    await run(scenario)
    if (options.raises !== true) assert.deepEqual(await scenario.raises(), { counted: 0, said: 0 })
    t.diagnostic(JSON.stringify({ ...scenario.ledger.acknowledged, ...scenario.service.tally }))
  } catch (error) {
    for (const { server } of scenario.nodes) t.diagnostic(server.log().slice(-3_000))
    throw error
  } finally {
    await scenario.close()
  }
}

export class Scenario {
  readonly nodes: readonly ServerNode[]
  readonly service: Service
  readonly ledger = new Ledger()
  readonly #options: ScenarioOptions
  readonly #directory: string
  readonly #sinceByDevice = new Map<string, string>()
  /** What the servers are led to. */
  #cluster: PostgresCluster
  #devices: readonly Device[] = []
  #traffic: Traffic | undefined
  /** Of servers that are no more. */
  #pastAlarms = 0

  static async open(options: ScenarioOptions): Promise<Scenario> {
    const directory = mkdtempSync(join(tmpdir(), 'latchkey-crash-postgres-'))
    const cluster = await startPostgresCluster(options.cluster)
    const nodes: ServerNode[] = []
    try {
      for (let n = 0; n < (options.servers ?? 2); n++) {
        const proxy = await TcpProxy.before(new URL(cluster.url))
        const dataDir = join(directory, `${n}`)
        nodes.push({ proxy, dataDir, server: await startServer(cluster, { proxy, dataDir }, n, options) })
      }
      const scenario = new Scenario(options, directory, cluster, nodes)
      scenario.#devices = await registerAll(scenario.service)
      return scenario
    } catch (error) {
      for (const { server, proxy } of nodes) await Promise.all([server.kill(), proxy.close()])
      await cluster.stop()
      throw error
    }
  }

  private constructor(
    options: ScenarioOptions,
    directory: string,
    cluster: PostgresCluster,
    nodes: readonly ServerNode[],
  ) {
    this.#options = options
    this.#directory = directory
    this.#cluster = cluster
    this.nodes = nodes
    const urls = (): string[] => nodes.map(({ server }) => server.url)
    this.service = new Service(urls, options.serversDie ?? false, () => this.#traffic?.answered())
  }

  get cluster(): PostgresCluster {
    return this.#cluster
  }

  get devices(): readonly Device[] {
    return this.#devices
  }

  /** How often the fence was raised, by the database and by what servers said of it: the same, but for raises by command. */
  async raises(): Promise<{ readonly counted: number; readonly said: number }> {
    const [row] = await this.#cluster.query<{ fence: string }>('select fence from stream')
    const said = this.nodes.map(({ server }) => server.alarms()).reduce((sum, n) => sum + n, this.#pastAlarms)
    return { counted: Number(row?.fence), said }
  }

  /** The servers lose the database. Resolves when all that it acknowledged has arrived, and it has ended what was cut off. */
  async cutOff(): Promise<void> {
    for (const { proxy } of this.nodes) proxy.refuse()
    await this.service.settled()
    await this.#quiet()
  }

  /** The servers reach a database again: this one, which is theirs from now on. The caller ends the one before. */
  reconnect(cluster: PostgresCluster = this.#cluster): void {
    this.moveTo(cluster)
    for (const { proxy } of this.nodes) proxy.accept()
  }

  /** The servers' connections are cut and lead to another cluster from now on. The caller ends the one before. */
  moveTo(cluster: PostgresCluster): void {
    this.#cluster = cluster
    for (const { proxy } of this.nodes) proxy.moveTo(new URL(cluster.url))
  }

  /** Starts a server that was killed or stopped again, over its data directory. */
  async restart(node: ServerNode): Promise<void> {
    this.#pastAlarms += node.server.alarms()
    node.server = await startServer(this.#cluster, node, this.nodes.indexOf(node), this.#options)
  }

  /** Traffic until there were so many answers, and then quiet. Nothing is checked but the answers themselves. */
  async flow(answers: number): Promise<void> {
    const traffic = this.startTraffic()
    try {
      await traffic.answers(answers)
    } finally {
      await traffic.stop()
    }
  }

  /** Traffic, the fault, traffic again; then all is quiet and checked. Resolves with how many requests were refused. */
  async round(fault: (traffic: Traffic) => Promise<void>): Promise<number> {
    const refusedBefore = this.service.tally.refused
    const traffic = this.startTraffic()
    try {
      await traffic.answers(randomInt(1, MAX_ANSWERS_BEFORE))
      await traffic.meanwhile(fault(traffic))
      await traffic.meanwhile(this.ready())
      await traffic.answers(ANSWERS_AFTER)
    } finally {
      await traffic.stop()
    }
    const refused = this.service.tally.refused - refusedBefore
    await this.check()
    return refused
  }

  /** Resolves when every server says that it is ready. */
  async ready(): Promise<void> {
    for (const node of this.nodes) {
      await within(
        'a server is ready again',
        until(() => isReady(node)),
        READY_WITHIN_MS,
      )
    }
  }

  /** Holds what devices read, through each server, against the ledger. Nothing may be under way. */
  async check(devices: readonly Device[] = this.#devices): Promise<void> {
    await this.#quiet()
    for (const { server } of this.nodes) {
      const only = new Service(() => [server.url], false)
      await checkAll(only, this.ledger, devices, this.#sinceByDevice)
    }
  }

  /** A message through the last server is heard by a sync that waits on the first: it still listens, or reads the table. */
  async wakes(): Promise<void> {
    await this.check()
    const [alice, bob] = this.#devices
    const [first, last] = [this.nodes[0], this.nodes.at(-1)]
    if (alice === undefined || bob === undefined || !first || !last) throw new Error('there is nobody')
    const since = this.#sinceByDevice.get(bob.deviceId)
    const waits = new Service(() => [first.server.url], false)
    const heard = waits.call(
      'GET',
      `/_matrix/client/v3/sync?timeout=${LONG_POLL_MS}&since=${since}`,
      bob.token,
    )
    await send(new Service(() => [last.server.url], false), this.ledger, alice, bob)
    const { body } = await within('a waiting sync is woken', heard)
    assert.equal((body['to_device'] as { events: readonly unknown[] }).events.length, 1)
    await this.check()
  }

  async close(): Promise<void> {
    for (const { server, proxy } of this.nodes) await Promise.all([server.kill(), proxy.close()])
    await this.#cluster.stop()
    rmSync(this.#directory, { recursive: true, force: true })
  }

  #quiet(): Promise<void> {
    return within(
      'the database has ended what was cut off',
      until(async () => (await this.#busy()) === 0),
      READY_WITHIN_MS,
    )
  }

  /** What it starts the caller stops. */
  startTraffic(): Traffic {
    return (this.#traffic = new Traffic(this.service, this.ledger, this.#devices))
  }

  /** Sessions of servers that carry something out. */
  async #busy(): Promise<number> {
    const [row] = await this.#cluster.query<{ count: string }>(
      `select count(*) from pg_stat_activity where application_name = 'latchkey' and state <> 'idle'`,
    )
    return Number(row?.count)
  }
}

export async function isReady({ server }: ServerNode): Promise<boolean> {
  const { status } = await fetch(`${server.url}/health/ready`)
  return status === 200
}

/** Looks again and again; the caller sets the end. */
export async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await wait(LOOK_EVERY_MS)
}

function startServer(
  cluster: PostgresCluster,
  { proxy, dataDir }: Pick<ServerNode, 'proxy' | 'dataDir'>,
  n: number,
  { environment, flags = () => [], start }: ScenarioOptions,
): Promise<ServerProcess> {
  const database = proxy.through(cluster.url)
  if (start !== undefined) return start(dataDir, database, n)
  const usual = ['--database', database, '--registration', 'open', '--limits', 'off']
  return startProcess(dataDir, [...usual, ...flags(n)], environment)
}
