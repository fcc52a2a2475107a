/** Accounts for the crash tests, and the comparison of their devices' pools and inboxes with the ledger. */
import assert from 'node:assert/strict'
import type { Ledger } from './ledger.ts'
import type { Caller, Device } from './operations.ts'

export async function registerAll(client: Caller): Promise<Device[]> {
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

/** No request may be pending. `sinceByDevice` keeps each device's sync token from one call to the next. */
export async function checkAll(
  client: Caller,
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
  client: Caller,
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
  const { body } = await client.call('POST', '/_matrix/client/v3/keys/upload', device.token, {})
  const [count = 0] = Object.values(body['one_time_key_counts'] as Record<string, number>)
  assert.equal(count, available.size, 'the count equals the number of available keys')
  return { available, issued }
}

/** All messages sent to a device since its previous sync. */
async function readInbox(
  client: Caller,
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
    for (const { content } of events) {
      assert.ok(!ids.has(content.id), `message ${content.id} was delivered twice`)
      ids.add(content.id)
    }
  }
}
