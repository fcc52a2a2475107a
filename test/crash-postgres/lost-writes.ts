/**
 * Shared by the fence tests: a database that loses acknowledged writes, and the checks afterwards. The fence was raised
 * exactly once, exactly one server reports it, no earlier key is issued, and no message from before the loss is
 * missing.
 */
import assert from 'node:assert/strict'
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type Device, send } from '../crash/operations.ts'
import { eventually, readMetrics } from '@latchkey/testing/metrics.ts'
import type { PostgresCluster } from '@latchkey/testing/postgres-cluster.ts'
import { ROUNDS, type Scenario, type ServerNode } from './scenario.ts'
import { Service } from './service.ts'

/** Replicas and recovering copies need the WAL of several minutes. */
export const KEEPS_WAL = { wal_keep_size: '256MB' } as const

/** Rounds of tests that need a new cluster each, which takes several seconds. */
export const CLUSTER_ROUNDS = Math.ceil(ROUNDS / 2)

const LOST_ANSWERS = 60
const ANSWERS_AFTER = 60

export type Loss = {
  /** Whether the servers keep running, or are killed and restarted over the rolled-back database. */
  readonly servers: 'run' | 'restart'
  /** Servers, by number, whose witnesses are removed. */
  readonly withoutWitness?: readonly number[]
  /** Called before the writes that must be missing from the new database. */
  readonly before: () => Promise<void> | void
  /** Returns the new database; the servers reach none meanwhile. */
  readonly swap: () => Promise<PostgresCluster>
}

/** Runs one loss. No traffic runs before and after. */
export async function loseWrites(scenario: Scenario, loss: Loss): Promise<void> {
  const { nodes, service, ledger } = scenario
  const { counted } = await scenario.raises()
  await scenario.runTraffic(20)
  await loss.before()
  ledger.lossBegins()
  await scenario.runTraffic(LOST_ANSWERS)
  await writeThroughEach(scenario)
  // Some devices have a sync token from before the lost writes, some from after.
  await scenario.check(scenario.devices.slice(0, 2))

  // Traffic continues while the database is away and as soon as the new one is available.
  const traffic = scenario.startTraffic()
  try {
    await traffic.answers(20)
    await traffic.meanwhile(scenario.cutOff())
    if (loss.servers === 'restart') for (const { server } of nodes) await server.kill()
    for (const n of loss.withoutWitness ?? []) removeWitness(nodes[n])
    const restarts = loss.servers === 'restart'
    // Servers without a witness must not be used before one with a witness has verified the database.
    if (restarts && loss.withoutWitness !== undefined) await traffic.stop()
    service.databaseReplaced()
    ledger.fenced()
    scenario.reconnect(await loss.swap())
    if (restarts) for (const node of nodes) await scenario.restart(node)
    await scenario.ready()
  } finally {
    await traffic.stop()
  }
  await scenario.runTraffic(ANSWERS_AFTER)
  await scenario.check()
  const after = await scenario.raises()
  assert.equal(after.counted, counted + 1, `raised ${after.counted - counted} times`)
}

/** Makes every server acknowledge a write, because a server without lost writes does not detect the loss. */
async function writeThroughEach({ nodes, ledger, devices }: Scenario): Promise<void> {
  const [alice, bob] = devices
  if (alice === undefined || bob === undefined) throw new Error('no devices')
  for (const { server } of nodes) await send(new Service(() => [server.url], false), ledger, alice, bob)
}

/** Asserts the number of raises, in the database and in the servers' logs. */
export async function assertRaises(scenario: Scenario, expected: number): Promise<void> {
  assert.deepEqual(await scenario.raises(), { counted: expected, reported: expected })
}

/**
 * Starts a sync on each server for a device that receives no messages. Resolves when all wait; each of them resolves
 * with the sync token of its answer.
 *
 * @param metricsPorts the servers' metrics ports; no other sync may wait there
 */
export async function waitingSyncs(
  { nodes }: Scenario,
  { token }: Device,
  metricsPorts: readonly number[],
): Promise<{ readonly answers: Promise<string[]> }> {
  const path = '/_matrix/client/v3/sync?timeout='
  const answers = nodes.map(async ({ server }) => {
    const only = new Service(() => [server.url], false)
    const { body } = await only.call('GET', `${path}0`, token)
    const answer = await only.call('GET', `${path}60000&since=${String(body['next_batch'])}`, token)
    return String(answer.body['next_batch'])
  })
  const all = Promise.all(answers)
  const waits = async (): Promise<boolean> => {
    const samples = await Promise.all(
      metricsPorts.map((port) => readMetrics(`http://127.0.0.1:${port}/metrics`)),
    )
    return samples.every((sample) => sample.get('latchkey_waiting_syncs') === 1)
  }
  const answered = all.then(() => Promise.reject(new Error('the syncs were answered at once')))
  await Promise.race([eventually(waits), answered])
  return { answers: all }
}

function removeWitness(node: ServerNode | undefined): void {
  if (node === undefined) throw new Error('no such server')
  for (const name of readdirSync(node.dataDir)) {
    if (name.startsWith('fence-')) rmSync(join(node.dataDir, name))
  }
}
