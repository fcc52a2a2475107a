/**
 * Shortages of PostgreSQL: disk space, locked rows, time, connections, a silent network. Requests are refused in time,
 * and succeed again without a restart when the shortage ends. CRASH_ROUNDS sets the rounds; scenario.ts says what every
 * round checks.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type pg from 'pg'
import type { PostgresCluster } from '@latchkey/testing/postgres-cluster.ts'
import { fillDisk, makeRoom, noSmallDisk } from '@latchkey/testing/small-disk.ts'
import { pick } from '../crash/operations.ts'
import { within } from '@latchkey/testing/within.ts'
import { Service } from './service.ts'
import { inScenario, isReady, ROUNDS, type Scenario, until } from './scenario.ts'

const MIB = 1 << 20
/** Refusals to wait for before the shortage ends. */
const REFUSALS = 20
const SHORT_WITHIN_MS = 60_000
/** Rounds of tests that wait for time limits, ten seconds each. */
const SLOW_ROUNDS = Math.ceil(ROUNDS / 4)

const skip = noSmallDisk()

/** Resolves after `count` more refusals. */
function refusals(scenario: Scenario, count = REFUSALS): Promise<void> {
  const before = scenario.service.tally.refused
  const enough = async (): Promise<boolean> => scenario.service.tally.refused >= before + count
  return within('requests are refused', until(enough), SHORT_WITHIN_MS)
}

/** Resolves when a server reports that it is not ready. */
function unready({ nodes }: Scenario): Promise<void> {
  const one = async (): Promise<boolean> => {
    const ready = await Promise.all(nodes.map((node) => isReady(node)))
    return ready.includes(false)
  }
  return within('a server reports that it is not ready', until(one), SHORT_WITHIN_MS)
}

for (const what of ['data', 'everything'] as const) {
  test(`PostgreSQL's disk is full (${what}), ${ROUNDS} times, until it has space`, { skip }, async (t) => {
    const settings = { min_wal_size: '32MB', max_wal_size: '64MB' }
    await inScenario(t, { cluster: { disk: { of: what, bytes: 200 * MIB }, settings } }, async (scenario) => {
      const { cluster } = scenario
      const disk = cluster.home.disk ?? assert.fail()
      for (let round = 0; round < ROUNDS; round++) {
        await scenario.round(async () => {
          fillDisk(disk)
          if (what === 'everything') await useUpWal(cluster)
          await refusals(scenario)
          makeRoom(disk)
          await postgresRestarted(cluster)
        })
      }
      await scenario.checkWakeUp()
    })
  })
}

/** Fills the WAL until the next segment does not fit. */
async function useUpWal(cluster: PostgresCluster): Promise<void> {
  try {
    for (let segment = 0; segment < 20; segment++) {
      await cluster.query(`select pg_logical_emit_message(true, '', repeat('x', 16 * 1024 * 1024))`)
    }
  } catch {
    // The disk is full.
  }
}

/** Without space for its WAL, PostgreSQL may shut down; an operator then starts it again. */
function postgresRestarted(cluster: PostgresCluster): Promise<void> {
  const answers = async (): Promise<boolean> => {
    if (!cluster.running) await cluster.start()
    return cluster.query('select 1').then(
      () => true,
      () => false,
    )
  }
  return within('PostgreSQL is back', until(answers), SHORT_WITHIN_MS)
}

test(`another session locks rows that every request needs, ${SLOW_ROUNDS} times`, async (t) => {
  await inScenario(t, { environment: { LATCHKEY_DATABASE_CONNECTIONS: '2' } }, async (scenario) => {
    for (let round = 0; round < SLOW_ROUNDS; round++) {
      const session = await scenario.cluster.connect()
      await scenario.round(async () => {
        await session.query('begin')
        await session.query('select 1 from stream for update')
        await Promise.all([refusals(scenario), unready(scenario)])
        await session.end()
      })
    }
    await scenario.checkWakeUp()
  })
})

test('requests over the queue limit are refused, and queued requests time out', async (t) => {
  await inScenario(t, { servers: 1 }, async (scenario) => {
    const session = await scenario.cluster.connect()
    await session.query('begin')
    await session.query('lock table stream, pools in access exclusive mode')
    const [device] = scenario.devices
    const asked = Array.from({ length: 2_500 }, () =>
      scenario.service.call('POST', '/_matrix/client/v3/keys/upload', device?.token, {}),
    )
    const outcomes = await Promise.allSettled(asked)
    assert.ok(outcomes.every(({ status }) => status === 'rejected'))
    assert.equal(
      scenario.service.tally.refused,
      asked.length,
      'some requests failed instead of being refused',
    )
    await session.end()
    await scenario.ready()
    await scenario.check()
  })
})

for (const how of ['pg_cancel_backend', 'pg_terminate_backend'] as const) {
  test(`PostgreSQL ends statements (${how}), ${ROUNDS} times, as a time-out or an operator does`, async (t) => {
    await inScenario(t, {}, async (scenario) => {
      const session = await scenario.cluster.connect()
      for (let round = 0; round < ROUNDS; round++) {
        await scenario.round(async () => {
          const enough = refusals(scenario)
          const signal = { done: false }
          const ends = enough.finally(() => (signal.done = true))
          while (!signal.done) {
            await session.query(
              `select ${how}(pid) from pg_stat_activity where application_name = 'latchkey' and state <> 'idle'`,
            )
          }
          await ends
        })
      }
      await session.end()
      await scenario.checkWakeUp()
    })
  })
}

test(`the network to PostgreSQL goes silent, ${SLOW_ROUNDS} times, and pending requests end`, async (t) => {
  await inScenario(t, {}, async (scenario) => {
    for (let round = 0; round < SLOW_ROUNDS; round++) {
      const node = pick(scenario.nodes)
      const only = new Service(() => [node.server.url], false)
      await scenario.round(async () => {
        node.proxy.fallSilent()
        // More requests than connections, so that every connection has one without an answer.
        const asked = Array.from({ length: 30 }, () =>
          only.call('POST', '/_matrix/client/v3/keys/upload', pick(scenario.devices).token, {}),
        )
        const outcomes = await Promise.allSettled(asked)
        assert.equal(only.tally.refused, asked.length, JSON.stringify(outcomes.map(String)))
        assert.ok(!(await isReady(node)))
        node.proxy.speak()
      })
    }
    await scenario.checkWakeUp()
  })
})

test(`others use all connections of PostgreSQL, ${ROUNDS} times`, async (t) => {
  const settings = { max_connections: '30' }
  await inScenario(t, { cluster: { settings } }, async (scenario) => {
    const operator = await scenario.cluster.connect()
    for (let round = 0; round < ROUNDS; round++) {
      await scenario.round(async () => {
        const others = await useUpConnections(scenario.cluster, operator)
        await Promise.all([refusals(scenario), unready(scenario)])
        await Promise.all(others.map((other) => other.end()))
      })
    }
    await operator.end()
    await scenario.checkWakeUp()
  })
})

/** Takes every connection, including those of the servers. */
async function useUpConnections(cluster: PostgresCluster, operator: pg.Client): Promise<pg.Client[]> {
  const others: pg.Client[] = []
  for (;;) {
    await operator.query(
      `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'latchkey'`,
    )
    try {
      for (;;) others.push(await cluster.connect())
    } catch {
      // No connection is left.
    }
    const { rowCount } = await operator.query(
      `select 1 from pg_stat_activity where application_name = 'latchkey'`,
    )
    if (rowCount === 0) return others
  }
}
