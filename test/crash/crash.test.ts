/**
 * kill -9 at a random answer under mixed load, again and again on one database: no key is issued twice, no acknowledged
 * upload, claim, reset or message is lost. CRASH_ROUNDS sets the number of rounds.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { randomInt } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { startProcess } from '../support/server-process.ts'
import { Ledger } from './ledger.ts'
import { Client, type Device, runLoad } from './load.ts'

const ROUNDS = Number(process.env['CRASH_ROUNDS'] ?? 8)
const MAX_ANSWERS = 300

test(`nothing acknowledged is lost and no key issued twice through ${ROUNDS} kills`, async (t) => {
  const dataDir = mkdtempSync(join(tmpdir(), 'latchkey-crash-'))
  const ledger = new Ledger()
  const sinceByDevice = new Map<string, string>()
  let devices: readonly Device[] = []
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const server = await startProcess(dataDir, ['--registration', 'open', '--limits', 'off'])
      if (round === 0) devices = await registerAll(new Client(server.url))
      else await checkAll(new Client(server.url), ledger, devices, sinceByDevice)
      let answersLeft = randomInt(1, MAX_ANSWERS)
      const killed = Promise.withResolvers<void>()
      const client = new Client(server.url, () => {
        if (--answersLeft === 0) killed.resolve(server.kill())
      })
      await runLoad(client, ledger, devices)
      await killed.promise
    }
    const server = await startProcess(dataDir)
    await checkAll(new Client(server.url), ledger, devices, sinceByDevice)
    await server.stop()
    t.diagnostic(`acknowledged: ${JSON.stringify(ledger.acknowledged)}`)
  } finally {
    rmSync(dataDir, { recursive: true, force: true })
  }
})

async function registerAll(client: Client): Promise<Device[]> {
  const devices: Device[] = []
  for (const username of ['alice', 'bob', 'carol', 'dave']) {
    const { body } = await client.call('POST', '/_matrix/client/v3/register', undefined, {
      username,
      password: 'correct horse',
      device_id: `${username}-phone`,
      auth: { type: 'm.login.dummy' },
    })
    devices.push({
      userId: String(body['user_id']),
      deviceId: String(body['device_id']),
      token: String(body['access_token']),
    })
  }
  return devices
}

async function checkAll(
  client: Client,
  ledger: Ledger,
  devices: readonly Device[],
  sinceByDevice: Map<string, string>,
): Promise<void> {
  for (const device of devices) {
    ledger.check(
      device.deviceId,
      await readPool(client, device),
      await readInbox(client, device, sinceByDevice),
    )
  }
}

type KeyList = readonly { readonly key_hash: string }[]

async function readPool(
  client: Client,
  device: Device,
): Promise<{ available: Set<string>; issued: Set<string> }> {
  const available = new Set<string>()
  const issued = new Set<string>()
  let from = ''
  do {
    const path = `/_matrix/client/unstable/dev.latchkey/keys/pool?limit=1000${from}`
    const { body } = await client.call('GET', path, device.token)
    const algorithms = body['algorithms'] as Record<string, { available: KeyList; issued: KeyList }>
    for (const pool of Object.values(algorithms)) {
      for (const key of pool.available) available.add(key.key_hash)
      for (const key of pool.issued) issued.add(key.key_hash)
    }
    from = body['next_batch'] === undefined ? '' : `&from=${String(body['next_batch'])}`
  } while (from !== '')
  return { available, issued }
}

/** Everything sent to a device since it last looked. */
async function readInbox(
  client: Client,
  device: Device,
  sinceByDevice: Map<string, string>,
): Promise<Set<string>> {
  const ids = new Set<string>()
  for (;;) {
    const since = sinceByDevice.get(device.deviceId)
    const path = `/_matrix/client/v3/sync?timeout=0${since === undefined ? '' : `&since=${since}`}`
    const { body } = await client.call('GET', path, device.token)
    sinceByDevice.set(device.deviceId, String(body['next_batch']))
    const { events } = body['to_device'] as { events: readonly { content: { id: string } }[] }
    if (events.length === 0) return ids
    for (const event of events) ids.add(event.content.id)
  }
}
