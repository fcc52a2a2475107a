/**
 * The crash tests on PostgreSQL: a cluster, server processes that each reach it through a proxy, accounts and a ledger.
 * A round is traffic, a fault in the middle of it, traffic again, and then the check: no key was issued twice, and no
 * acknowledged write is lost.
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

/** Rounds of each fault. */
export const ROUNDS = Number(process.env['CRASH_ROUNDS'] ?? 2)

export type ScenarioOptions = {
  /** Number of server processes. Default: 2. */
  readonly servers?: number
  readonly cluster?: ClusterOptions
  /** Environment of the servers: `{ LATCHKEY_DATABASE_CONNECTIONS: '4' }`. */
  readonly environment?: Readonly<Record<string, string>>
  /** Additional flags of server `n`: `['--fence-dir', '/mnt/0']`. */
  readonly flags?: (n: number) => readonly string[]
  /** Starts a server. Default: as a separate process. */
  readonly start?: (dataDir: string, database: string, n: number) => Promise<ServerProcess>
  /** Whether requests may end without an answer. Default: no. */
  readonly serversDie?: boolean
  /** Whether the fence is raised, which the test then checks itself. Default: no, which is checked at the end. */
  readonly raises?: boolean
}

/** A server process, its data directory, and the network between it and the database. */
export type ServerNode = { server: ServerProcess; readonly dataDir: string; readonly proxy: TcpProxy }

/** Maximum of answers before the fault, which comes at a random moment. */
const MAX_ANSWERS_BEFORE = 80
/** Answers after the fault that show that traffic flows again. */
const ANSWERS_AFTER = 60
const READY_WITHIN_MS = 30_000
const POLL_EVERY_MS = 50
const LONG_POLL_MS = 30_000

/** Runs a scenario and ends all its processes. On failure the test's report has the servers' logs. */
export async function inScenario(
  t: TestContext,
  options: ScenarioOptions,
  run: (scenario: Scenario) => Promise<void>,
): Promise<void> {
  const scenario = await Scenario.open(options)
  try {
    await run(scenario)
    if (options.raises !== true) assert.deepEqual(await scenario.raises(), { counted: 0, reported: 0 })
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
  /** The cluster that the proxies forward to. */
  #cluster: PostgresCluster
  #devices: readonly Device[] = []
  #traffic: Traffic | undefined
  /** Raises reported by servers that have ended. */
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

  /** Number of raises, by the database and by the servers' logs; they differ only by raises from commands. */
  async raises(): Promise<{ readonly counted: number; readonly reported: number }> {
    const [row] = await this.#cluster.query<{ fence: string }>('select fence from stream')
    const reported = this.nodes
      .map(({ server }) => server.alarms())
      .reduce((sum, n) => sum + n, this.#pastAlarms)
    return { counted: Number(row?.fence), reported }
  }

  /** Cuts the servers from the database. Resolves when all answers arrived and it has ended the cut sessions. */
  async cutOff(): Promise<void> {
    for (const { proxy } of this.nodes) proxy.refuse()
    await this.service.settled()
    await this.#quiet()
  }

  /** Connects the servers to a database again, by default the same. The caller ends the previous one. */
  reconnect(cluster: PostgresCluster = this.#cluster): void {
    this.moveTo(cluster)
    for (const { proxy } of this.nodes) proxy.accept()
  }

  /** Cuts the servers' connections and forwards new ones to another cluster. The caller ends the previous one. */
  moveTo(cluster: PostgresCluster): void {
    this.#cluster = cluster
    for (const { proxy } of this.nodes) proxy.moveTo(new URL(cluster.url))
  }

  /** Restarts a server that was killed or stopped, over its data directory. */
  async restart(node: ServerNode): Promise<void> {
    this.#pastAlarms += node.server.alarms()
    node.server = await startServer(this.#cluster, node, this.nodes.indexOf(node), this.#options)
  }

  /** Runs traffic for this number of answers, then stops it. Checks only the answers themselves. */
  async runTraffic(answers: number): Promise<void> {
    const traffic = this.startTraffic()
    try {
      await traffic.answers(answers)
    } finally {
      await traffic.stop()
    }
  }

  /** Traffic, the fault, traffic again, then the checks. Resolves with the number of refused requests. */
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

  /** Resolves when every server reports that it is ready. */
  async ready(): Promise<void> {
    for (const node of this.nodes) {
      await within(
        'a server is ready again',
        until(() => isReady(node)),
        READY_WITHIN_MS,
      )
    }
  }

  /** Compares what devices read through each server with the ledger. No request may be pending. */
  async check(devices: readonly Device[] = this.#devices): Promise<void> {
    await this.#quiet()
    for (const { server } of this.nodes) {
      const only = new Service(() => [server.url], false)
      await checkAll(only, this.ledger, devices, this.#sinceByDevice)
    }
  }

  /** A message sent to the last server wakes a sync on the first, by notification or by polling. */
  async checkWakeUp(): Promise<void> {
    await this.check()
    const [alice, bob] = this.#devices
    const [first, last] = [this.nodes[0], this.nodes.at(-1)]
    if (alice === undefined || bob === undefined || !first || !last) throw new Error('no devices')
    const since = this.#sinceByDevice.get(bob.deviceId)
    const waiting = new Service(() => [first.server.url], false)
    const woken = waiting.call(
      'GET',
      `/_matrix/client/v3/sync?timeout=${LONG_POLL_MS}&since=${since}`,
      bob.token,
    )
    await send(new Service(() => [last.server.url], false), this.ledger, alice, bob)
    const { body } = await within('a waiting sync is woken', woken)
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
      'the database has ended the cut sessions',
      until(async () => (await this.#busy()) === 0),
      READY_WITHIN_MS,
    )
  }

  /** The caller stops the traffic. */
  startTraffic(): Traffic {
    return (this.#traffic = new Traffic(this.service, this.ledger, this.#devices))
  }

  /** Number of server sessions that execute a statement. */
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

/** Polls without limit; the caller sets a time limit. */
export async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await wait(POLL_EVERY_MS)
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
