/**
 * Faults of processes and connections under traffic: a server is killed, PostgreSQL crashes, connections are cut.
 * CRASH_ROUNDS sets the rounds of each; scenario.ts says what every round checks.
 */
import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { test } from 'node:test'
import { isCommit } from '@latchkey/testing/postgres-messages.ts'
import { pick } from '../crash/operations.ts'
import { inScenario, ROUNDS } from './scenario.ts'

test(`one of two servers is killed, ${ROUNDS} times, and the other keeps serving`, async (t) => {
  await inScenario(t, { serversDie: true }, async (scenario) => {
    for (let round = 0; round < ROUNDS; round++) {
      await scenario.round(async (traffic) => {
        const node = pick(scenario.nodes)
        await node.server.kill()
        await traffic.answers(40)
        await scenario.restart(node)
      })
    }
    await scenario.checkWakeUp()
  })
})

test(`PostgreSQL crashes and restarts, ${ROUNDS} times, and no server needs a restart`, async (t) => {
  await inScenario(t, {}, async (scenario) => {
    for (let round = 0; round < ROUNDS; round++) {
      await scenario.round(async () => {
        await scenario.cluster.shutDown('immediate')
        await scenario.cluster.start()
      })
    }
    assert.ok(scenario.service.tally.refused > 0, 'no request was pending at any crash')
    await scenario.checkWakeUp()
  })
})

test(`connections are cut, ${ROUNDS} times at commits and anywhere, and no server hangs`, async (t) => {
  await inScenario(t, {}, async (scenario) => {
    for (let round = 0; round < ROUNDS; round++) {
      const { proxy } = pick(scenario.nodes)
      for (const moment of ['sent', 'answered'] as const) {
        const refused = await scenario.round(async () => {
          const commit = await proxy.catch(isCommit, moment)
          commit.cut()
        })
        assert.ok(refused > 0, `a commit cut when ${moment} was not refused`)
      }
      await scenario.round(async (traffic) => {
        proxy.cutAfter(randomInt(1, 20_000))
        await traffic.answers(40)
      })
      await scenario.round(async (traffic) => {
        proxy.refuse()
        await traffic.answers(40)
        proxy.accept()
      })
    }
    await scenario.checkWakeUp()
  })
})
