/**
 * The rollback fence when replicas are promoted, with and without lost writes, and when commands raise it. CRASH_ROUNDS
 * sets the rounds; scenario.ts and lost-writes.ts say what they check.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { freePort } from '@latchkey/testing/postgres-server.ts'
import { startReplica } from '@latchkey/testing/postgres-replica.ts'
import { runLatchkey } from '@latchkey/testing/run-latchkey.ts'
import { claim, type Device, pick, upload } from '../crash/operations.ts'
import { MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { OlmDevice } from '@latchkey/testing/olm-device.ts'
import { within } from '@latchkey/testing/within.ts'
import { assertRaises, CLUSTER_ROUNDS, KEEPS_WAL, loseWrites, waitingSyncs } from './lost-writes.ts'
import { inScenario, isReady, ROUNDS, type Scenario, type ServerNode, until } from './scenario.ts'
import { Service } from './service.ts'

const WOKEN_WITHIN_MS = 20_000

/** Promotes a replica that lacks the latest acknowledged writes. */
async function promoteLagging(
  scenario: Scenario,
  loss: Pick<Parameters<typeof loseWrites>[1], 'servers' | 'withoutWitness'>,
): Promise<void> {
  const primary = scenario.cluster
  const replica = await startReplica(primary)
  await loseWrites(scenario, {
    ...loss,
    before: async () => {
      await replica.caughtUp()
      replica.pause()
    },
    swap: async () => {
      await primary.stop()
      await replica.promote()
      return replica.cluster
    },
  })
}

test(`promoting a lagging replica raises the fence once, ${CLUSTER_ROUNDS} times`, async (t) => {
  const options = { servers: 3, cluster: { settings: KEEPS_WAL }, serversDie: true, raises: true }
  await inScenario(t, options, async (scenario) => {
    const [, , , dave] = scenario.devices
    assert.ok(dave)
    let raises = 0
    for (let round = 0; round < CLUSTER_ROUNDS; round++) {
      const { unanswered } = scenario.service.tally
      await promoteLagging(scenario, { servers: 'run' })
      await assertRaises(scenario, ++raises)
      // Running servers have their acknowledged writes in memory.
      await promoteLagging(scenario, { servers: 'run', withoutWitness: [0, 1] })
      await assertRaises(scenario, ++raises)
      assert.equal(scenario.service.tally.unanswered, unanswered, 'a running server did not answer')
      for (const node of scenario.nodes) {
        await node.server.stop()
        await scenario.restart(node)
      }
      await promoteLagging(scenario, { servers: 'restart' })
      await assertRaises(scenario, ++raises)
      await promoteLagging(scenario, { servers: 'restart', withoutWitness: [0, 1] })
      await assertRaises(scenario, ++raises)
    }
    await scenario.checkWakeUp()
  })
})

test('a server without lost writes that reaches the promoted replica first issues nothing twice', async (t) => {
  await inScenario(t, { cluster: { settings: KEEPS_WAL }, raises: true }, async (scenario) => {
    const [one, two] = scenario.nodes
    const [alice, bob] = scenario.devices
    assert.ok(one && two && alice && bob)
    const by = ({ server }: ServerNode): Service => new Service(() => [server.url], false)
    const claims = async (count: number, node: ServerNode): Promise<void> => {
      for (let n = 0; n < count; n++) await claim(by(node), scenario.ledger, bob, [alice])
    }
    for (let batch = 0; batch < 8; batch++) await upload(by(two), scenario.ledger, alice)
    const replica = await startReplica(scenario.cluster)
    await replica.caughtUp()
    replica.pause()
    await claims(12, one)
    const primary = scenario.cluster
    await scenario.cutOff()
    await primary.stop()
    await replica.promote()
    scenario.moveTo(replica.cluster)
    scenario.ledger.fenced()
    two.proxy.accept()
    await within(
      'the server is ready',
      until(() => isReady(two)),
      WOKEN_WITHIN_MS,
    )
    const onlyTwoHasVerified = async (): Promise<boolean> => {
      const verified = await replica.cluster.query(`select 1 from looks join stream using (server_start)`)
      return verified.length === 1
    }
    const letOneIn = async (): Promise<void> => {
      await within('the server has verified the database', until(onlyTwoHasVerified), WOKEN_WITHIN_MS)
      one.proxy.accept()
    }
    await Promise.all([claims(12, two), letOneIn()])
    await assertRaises(scenario, 1)
  })
})

test('waiting syncs on every server are woken, and unmodified clients continue', async (t) => {
  const ports = [await freePort(), await freePort()]
  const options = { cluster: { settings: KEEPS_WAL }, flags: showsMetricsOn(ports), raises: true }
  await inScenario(t, options, async (scenario) => {
    const [first, second] = scenario.nodes
    assert.ok(first && second)
    const quiet = await registerOn(first.server.url, 'quiet')
    using alice = await OlmDevice.ready(first.server.url, { user: 'olm-alice', deviceId: 'PHONE' })
    using bob = await OlmDevice.ready(second.server.url, { user: 'olm-bob', deviceId: 'PHONE' })
    await bob.write(alice, 'before the backup')
    const claimed = new Set<string>()
    const claimNew = async (count: number): Promise<void> => {
      for (const { key } of await bob.session.claimMany(alice.userId, alice.deviceId, count)) {
        assert.ok(!claimed.has(key), `key ${key} was issued twice`)
        claimed.add(key)
      }
    }
    const replica = await startReplica(scenario.cluster)
    await replica.caughtUp()
    replica.pause()

    await claimNew(20)
    await alice.sync()
    await alice.sendRequests({ loseUploadAnswer: true })
    await claimNew(20)
    const waiting = await waitingSyncs(scenario, quiet, ports)
    const primary = scenario.cluster
    await scenario.cutOff()
    await primary.stop()
    await replica.promote()
    scenario.reconnect(replica.cluster)
    await scenario.ready()
    const answers = await within('waiting syncs are woken', waiting.answers, WOKEN_WITHIN_MS)
    assert.equal(new Set(answers.map(epochOf)).size, 1)
    await assertRaises(scenario, 1)

    await alice.catchUp()
    assert.deepEqual(alice.lastUpload.body.one_time_key_counts, { signed_curve25519: 50 })
    await claimNew(40)
    using carol = await OlmDevice.ready(second.server.url, { user: 'olm-carol', deviceId: 'PHONE' })
    const forCarol = await carol.write(alice, 'after the failover')
    assert.ok(forCarol && !claimed.has(forCarol.key))
    await bob.write(alice, 'on the previous session')
    await alice.catchUp()
    assert.deepEqual(alice.received.map(({ text }) => text).sort(), [
      'after the failover',
      'before the backup',
      'on the previous session',
    ])
    assert.deepEqual(alice.undecryptable, [])
  })
})

/** A device that the traffic does not use. */
async function registerOn(url: string, name: string): Promise<Device> {
  const { token, userId, deviceId } = await MatrixSession.signIn(url, name, 'PHONE')
  return { token, userId, deviceId }
}

function showsMetricsOn(ports: readonly number[]): (n: number) => string[] {
  return (n) => ['--metrics-port', `${ports[n]}`]
}

/** Epoch of a sync token `s1.EPOCH.POSITION.MAC`. */
function epochOf(token: string): string {
  return token.split('.')[1] ?? ''
}

test(`the fence is not raised by complete replicas, restarts, crashes and ${ROUNDS * 5} kills`, async (t) => {
  const options = { cluster: { settings: KEEPS_WAL }, serversDie: true }
  await inScenario(t, options, async (scenario) => {
    for (let round = 0; round < ROUNDS; round++) {
      await scenario.round(async () => {
        const primary = scenario.cluster
        const replica = await startReplica(primary)
        await scenario.cutOff()
        await replica.caughtUp()
        await primary.stop()
        await replica.promote()
        scenario.reconnect(replica.cluster)
      })
      for (const mode of ['fast', 'immediate'] as const) {
        await scenario.round(async () => {
          await scenario.cluster.shutDown(mode)
          await scenario.cluster.start()
        })
      }
      await scenario.round(async (traffic) => {
        for (let kill = 0; kill < 5; kill++) {
          const node = pick(scenario.nodes)
          await node.server.kill()
          await scenario.restart(node)
          await traffic.answers(10)
        }
      })
      await assertRaises(scenario, 0)
    }
    await scenario.checkWakeUp()
  })
})

test(`two concurrent commands raise the fence, ${ROUNDS} times, during claims`, async (t) => {
  const ports = [await freePort(), await freePort()]
  await inScenario(t, { flags: showsMetricsOn(ports), raises: true }, async (scenario) => {
    const { cluster, devices, ledger, service } = scenario
    const url = scenario.nodes[0]?.server.url ?? ''
    const [quiet, away] = [await registerOn(url, 'quiet'), await registerOn(url, 'away')]
    for (let round = 0; round < ROUNDS; round++) {
      const before = await scenario.raises()
      await upload(service, ledger, away)
      const waiting = await waitingSyncs(scenario, quiet, ports)
      const traffic = scenario.startTraffic()
      try {
        await traffic.answers(40)
        const stored = ledger.storedKeys
        const raise = ['fence', 'raise', '--database', cluster.url]
        const commands = [runLatchkey(raise), runLatchkey(raise)]
        for (const { code, stderr } of await traffic.meanwhile(Promise.all(commands)))
          assert.equal(code, 0, stderr)
        await service.settled()
        service.databaseReplaced()
        ledger.fenced(stored)
        // The token of a device that has not learned of the raise yet.
        for (let n = 0; n < 10; n++) await claim(service, ledger, quiet, [away])
        await traffic.answers(100)
      } finally {
        await traffic.stop()
      }
      await within('waiting syncs are woken', waiting.answers, WOKEN_WITHIN_MS)
      await scenario.check()
      for (const device of devices) assert.ok((await keyCount(scenario, device)) > 0, 'a device has no keys')
      assert.deepEqual(await scenario.raises(), { counted: before.counted + 2, reported: 0 })
    }
    await scenario.checkWakeUp()
  })
})

async function keyCount({ service }: Scenario, { token }: Device): Promise<number> {
  const { body } = await service.call('POST', '/_matrix/client/v3/keys/upload', token, {})
  return (body['one_time_key_counts'] as Record<string, number>)['signed_curve25519'] ?? 0
}
