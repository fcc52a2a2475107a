/**
 * What the fence tests share: a database that loses what it acknowledged, and what is to hold afterwards. The fence was
 * raised exactly once, said by exactly one server; no key of before is issued; no message of before the loss is gone.
 */
import assert from 'node:assert/strict'
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type Device, send } from '../crash/operations.ts'
import { eventually, readMetrics } from '@latchkey/testing/metrics.ts'
import type { PostgresCluster } from '@latchkey/testing/postgres-cluster.ts'
import { ROUNDS, type Scenario, type ServerNode } from './scenario.ts'
import { Service } from './service.ts'

/** Replicas, and copies that recover from it, need the WAL of some minutes. */
export const KEEPS_WAL = { wal_keep_size: '256MB' } as const

/** A round with a cluster of its own takes several seconds. */
export const CLUSTER_ROUNDS = Math.ceil(ROUNDS / 2)

const LOST_ANSWERS = 60
const ANSWERS_AFTER = 60

export type Loss = {
  /** What becomes of the servers: they run on, or are killed and started again over the database that went back. */
  readonly servers: 'run' | 'restart'
  /** Servers, by number, whose witnesses are removed. */
  readonly withoutWitness?: readonly number[]
  /** Nothing acknowledged after this may be in the database that comes. */
  readonly before: () => Promise<void> | void
  /** The database that comes; the servers reach none meanwhile. */
  readonly swap: () => Promise<PostgresCluster>
}

/** Everything is quiet before and after. */
export async function loseWrites(scenario: Scenario, loss: Loss): Promise<void> {
  const { nodes, service, ledger } = scenario
  const { counted } = await scenario.raises()
  await scenario.flow(20)
  await loss.before()
  ledger.lossBegins()
  await scenario.flow(LOST_ANSWERS)
  await writeThroughEach(scenario)
  // Some hold a sync token of what is going to be lost, and some one of before.
  await scenario.check(scenario.devices.slice(0, 2))

  // Claims and whatever else go on while the database goes away, and from the moment that another is there.
  const traffic = scenario.startTraffic()
  try {
    await traffic.answers(20)
    await traffic.meanwhile(scenario.cutOff())
    if (loss.servers === 'restart') for (const { server } of nodes) await server.kill()
    for (const n of loss.withoutWitness ?? []) removeWitness(nodes[n])
    const restarts = loss.servers === 'restart'
    // Servers without a witness must not be asked before one with a witness has met the database.
    if (restarts && loss.withoutWitness !== undefined) await traffic.stop()
    service.beginEra()
    ledger.fenced()
    scenario.reconnect(await loss.swap())
    if (restarts) for (const node of nodes) await scenario.restart(node)
    await scenario.ready()
  } finally {
    await traffic.stop()
  }
  await scenario.flow(ANSWERS_AFTER)
  await scenario.check()
  const after = await scenario.raises()
  assert.equal(after.counted, counted + 1, `raised ${after.counted - counted} times`)
}

/** Every server has acknowledged something: with nothing lost of its own it would notice nothing by itself. */
async function writeThroughEach({ nodes, ledger, devices }: Scenario): Promise<void> {
  const [alice, bob] = devices
  if (alice === undefined || bob === undefined) throw new Error('there is nobody')
  for (const { server } of nodes) await send(new Service(() => [server.url], false), ledger, alice, bob)
}

/** How often the fence was raised so far, and that the servers have said so exactly as often. */
export async function assertRaises(scenario: Scenario, expected: number): Promise<void> {
  assert.deepEqual(await scenario.raises(), { counted: expected, said: expected })
}

/**
 * Syncs of a device that nobody writes to, one on each server. Resolves when all of them wait; each of these resolves with
 * the sync token of its answer.
 *
 * @param metricsPorts of the servers, which have no other sync waiting
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
  if (node === undefined) throw new Error('there is no such server')
  for (const name of readdirSync(node.dataDir)) {
    if (name.startsWith('fence-')) rmSync(join(node.dataDir, name))
  }
}
