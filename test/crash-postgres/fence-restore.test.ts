/**
 * The rollback fence when an operator restores a backup, when the witness has no disk space, and when a clock is wrong.
 * CRASH_ROUNDS sets the rounds; scenario.ts and lost-writes.ts say what they check.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { DEFAULT_CONFIG } from '../../packages/server/src/config/config.ts'
import { startServer } from '../../packages/server/src/main.ts'
import { type ClusterCopy, copyCluster, type StartCopy } from '@latchkey/testing/postgres-copy.ts'
import { makePostgresHome } from '@latchkey/testing/postgres-home.ts'
import { fillDisk, makeRoom, noSmallDisk } from '@latchkey/testing/small-disk.ts'
import { type Device, send } from '../crash/operations.ts'
import type { ServerProcess } from '@latchkey/testing/server-process.ts'
import { within } from '@latchkey/testing/within.ts'
import { assertRaises, CLUSTER_ROUNDS, KEEPS_WAL, loseWrites } from './lost-writes.ts'
import { inScenario, ROUNDS, type Scenario, until } from './scenario.ts'
import { InDoubt, Service } from './service.ts'

const MIB = 1 << 20
const REFUSALS = 40
const REFUSED_WITHIN_MS = 30_000
const DAY_MS = 24 * 60 * 60 * 1000

/** Stops everything and starts an earlier backup in place of the database. */
async function restore(scenario: Scenario, as: StartCopy['as'] & string): Promise<void> {
  const original = scenario.cluster
  const made: { copy?: ClusterCopy } = {}
  await loseWrites(scenario, {
    servers: 'restart',
    before: async () => void (made.copy = await copyCluster(original)),
    swap: async () => {
      await original.stop()
      return made.copy?.start({ as }) ?? assert.fail()
    },
  })
}

/** Restores a backup with all later WAL, as an operator with a WAL archive does. */
async function restoreWithAllWal(scenario: Scenario): Promise<void> {
  const original = scenario.cluster
  const copy = await copyCluster(original)
  await scenario.round(async (traffic) => {
    await traffic.answers(40)
    await scenario.cutOff()
    for (const { server } of scenario.nodes) await server.kill()
    await original.shutDown('immediate')
    const settings = { restore_command: `cp ${join(original.home.data, 'pg_wal')}/%f %p` }
    scenario.reconnect(await copy.start({ as: 'recovery', settings }))
    await original.stop()
    for (const node of scenario.nodes) await scenario.restart(node)
  })
}

test(`a restored backup raises the fence if writes are lost, ${CLUSTER_ROUNDS} times per kind of restore`, async (t) => {
  await inScenario(
    t,
    { cluster: { settings: KEEPS_WAL }, serversDie: true, raises: true },
    async (scenario) => {
      let raises = 0
      for (let round = 0; round < CLUSTER_ROUNDS; round++) {
        for (const as of ['plain', 'recovery'] as const) {
          await restore(scenario, as)
          await assertRaises(scenario, ++raises)
        }
        await restoreWithAllWal(scenario)
        await assertRaises(scenario, raises)
      }
      await scenario.checkWakeUp()
    },
  )
})

test(`a full witness disk refuses writes without losing a key, ${ROUNDS} times, until it has space`, {
  skip: noSmallDisk(),
}, async (t) => {
  // Uses a cluster's home for its disk, because that is unmounted even if the test fails.
  const home = makePostgresHome({ of: 'everything', bytes: 4 * MIB })
  const disk = home.disk ?? assert.fail()
  try {
    const directory = (n: number): string => join(disk, `${n}`)
    await inScenario(t, { flags: (n) => ['--fence-dir', directory(n)] }, async (scenario) => {
      for (let round = 0; round < ROUNDS; round++) {
        for (const places of ['one', 'both'] as const) {
          await scenario.runTraffic(20)
          await scenario.check()
          for (const n of scenario.nodes.keys()) punchHoles(directory(n), places)
          fillDisk(disk)
          await expectAllRefused(scenario)
          makeRoom(disk)
          await scenario.round(async () => {})
        }
      }
      await scenario.checkWakeUp()
    })
  } finally {
    await home.remove()
  }
})

/** Removes the witness's reserved space, as on copy-on-write file systems or with sparse files. */
function punchHoles(directory: string, places: 'one' | 'both'): void {
  for (const name of readdirSync(directory).filter((file) => !file.endsWith('.lock'))) {
    const length = places === 'both' ? 128 << 10 : 64 << 10
    execFileSync('fallocate', ['--punch-hole', '-o', '0', '-l', `${length}`, join(directory, name)])
  }
}

/** Every write is refused, and after the first refusals nothing is executed nevertheless. */
async function expectAllRefused(scenario: Scenario): Promise<void> {
  const { nodes, ledger, devices, service, cluster } = scenario
  const [alice, bob] = devices
  assert.ok(alice && bob)
  for (const { server } of nodes) await untilRefused(new Service(() => [server.url], false), alice, bob)
  const keys = (): Promise<object[]> =>
    cluster.query('select pool_num, state, count(*) from one_time_keys group by 1, 2 order by 1, 2')
  const before = await keys()
  const refusedBefore = service.tally.refused
  const issuedBefore = ledger.acknowledged.claimedKeys
  const traffic = scenario.startTraffic()
  try {
    const enough = async (): Promise<boolean> => service.tally.refused >= refusedBefore + REFUSALS
    await traffic.meanwhile(within('requests are refused', until(enough), REFUSED_WITHIN_MS))
  } finally {
    await traffic.stop()
  }
  assert.equal(ledger.acknowledged.claimedKeys, issuedBefore)
  assert.deepEqual(await keys(), before, 'keys were lost')

  async function untilRefused(only: Service, from: Device, to: Device): Promise<void> {
    // A place of the witness that still has its space accepts one write.
    for (let sent = 0; sent < 3; sent++) {
      try {
        await send(only, ledger, from, to)
      } catch (error) {
        if (error instanceof InDoubt) return
        throw error
      }
    }
    assert.fail('a write was acknowledged without a witness')
  }
}

test(`the fence works with clocks set to the past, ${CLUSTER_ROUNDS} times, on one server and on both`, async (t) => {
  const clock = { behindMs: [0, 0] }
  const start = async (dataDir: string, database: string, n: number): Promise<ServerProcess> => {
    const { rates: _unlimited, ...config } = DEFAULT_CONFIG
    const server = await startServer(
      // Clocks 400 days apart: the process that is ahead must not delete the details of keys that the test lists.
      {
        ...config,
        port: 0,
        registration: 'open',
        logLevel: 'silent',
        securityLog: 'off',
        dataDir,
        database,
        retentionDays: 3650,
      },
      { now: () => Date.now() - (clock.behindMs[n] ?? 0) },
    )
    return {
      url: server.url,
      log: () => '',
      alarms: () => 0,
      kill: () => server.close(),
      stop: () => server.close().then(() => 0),
    }
  }
  await inScenario(t, { start, serversDie: true }, async (scenario) => {
    for (let round = 0; round < CLUSTER_ROUNDS; round++) {
      for (const behindMs of [
        [0, 10 * DAY_MS],
        [400 * DAY_MS, 10 * DAY_MS],
        [0, 0],
      ]) {
        await scenario.round(async (traffic) => {
          clock.behindMs = behindMs
          await traffic.answers(40)
          // Also in processes that start with this clock.
          for (const node of scenario.nodes) {
            await node.server.stop()
            await scenario.restart(node)
          }
        })
      }
    }
    await scenario.checkWakeUp()
  })
})
