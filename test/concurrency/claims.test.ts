/**
 * Many claimers of one device at several processes: each key is issued once, in upload order, without a false miss, to
 * the last key and beyond (key-pool.md "Once", "No false miss", "Order"). Checked by counting, where the result is
 * known, and by the history checker, which shares no code with the server.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, test } from 'node:test'
import { checkHistory } from '../../bench/lib/history.ts'
import { type Device, type Processes, startProcesses, RecordingClient } from './processes.ts'

const PROCESSES = [1, 2, 4]
const CLAIMERS = [2, 8, 40, 200]
const CURVE = 'signed_curve25519'
/** Keys per upload; there are several uploads, so that upload order differs from ID order. */
const UPLOAD = 20
/** Claims after the last key. */
const BEYOND = 40

let processes: Processes
let claimers: readonly Device[] = []
let owners: Device[] = []

before(async () => {
  processes = await startProcesses(Math.max(...PROCESSES))
  claimers = await processes.makeDevices('claimer', Math.max(...CLAIMERS))
  owners = await processes.makeDevices('owner', 3 * PROCESSES.length * CLAIMERS.length)
})

after(async () => {
  await processes.stop()
})

for (const count of PROCESSES) {
  for (const simultaneous of CLAIMERS) {
    const keys = 60 + simultaneous
    for (const fallback of [true, false]) {
      const rest = fallback ? 'the fallback key' : 'nothing'
      test(`${simultaneous} claimers at ${count} processes get each key once, in order, then ${rest}`, async () => {
        const { client, owner, claiming } = setUp(count, simultaneous)
        for (let n = 0; n < keys; n += UPLOAD) await upload(client, owner, Math.min(UPLOAD, keys - n))
        const last = fallback ? await uploadFallback(client, owner) : undefined
        const claimed = await claimAll(client, claiming, owner, keys + BEYOND)
        const oneTime = claimed.filter((key) => key !== undefined && key !== last)
        assert.equal(oneTime.length, keys, 'the number of claims that got a one-time key')
        assert.equal(new Set(oneTime).size, keys, 'no key twice')
        assert.equal(claimed.filter((key) => key === last).length, BEYOND, `the others got ${rest}`)
        await checkRecorded(client, owner)
      })
    }

    test(`${simultaneous} claimers at ${count} processes see no miss and no reordering during uploads`, async () => {
      const { client, owner, claiming } = setUp(count, simultaneous)
      await uploadFallback(client, owner)
      await upload(client, owner, UPLOAD)
      const uploads = (async () => {
        for (let n = UPLOAD; n < keys; n += UPLOAD) await upload(client, owner, UPLOAD)
      })()
      const claimed = await claimAll(client, claiming, owner, keys)
      await uploads
      assert.ok(new Set(claimed).size > 1)
      await checkRecorded(client, owner)
    })
  }
}

type Setup = {
  readonly client: RecordingClient
  readonly owner: Device
  readonly claiming: readonly Device[]
}

function setUp(count: number, simultaneous: number): Setup {
  const owner = owners.pop()
  assert.ok(owner)
  const claiming = claimers.slice(0, simultaneous)
  return {
    client: new RecordingClient(processes.urls.slice(0, count), [owner, ...claiming]),
    owner,
    claiming,
  }
}

/** Uploads keys with random IDs. */
async function upload(client: RecordingClient, { token }: Device, count: number): Promise<void> {
  const keys = Array.from({ length: count }, () => [
    `${CURVE}:${randomBytes(6).toString('hex')}`,
    { key: randomBytes(32).toString('base64').slice(0, 43), signatures: {} },
  ])
  await client.ask('POST', 'v3/keys/upload', token, { one_time_keys: Object.fromEntries(keys) })
}

/** Returns the fallback key's name. */
async function uploadFallback(client: RecordingClient, { token }: Device): Promise<string> {
  const key = { key: randomBytes(32).toString('base64').slice(0, 43), signatures: {}, fallback: true }
  await client.ask('POST', 'v3/keys/upload', token, { fallback_keys: { [`${CURVE}:fallback`]: key } })
  return `${CURVE}:fallback`
}

/** All claimers claim concurrently, one key at a time, `total` claims together. Returns the keys' names. */
async function claimAll(
  client: RecordingClient,
  claiming: readonly Device[],
  { userId, deviceId }: Device,
  total: number,
): Promise<(string | undefined)[]> {
  const claimed: (string | undefined)[] = []
  let left = total
  const claimOn = async ({ token }: Device): Promise<void> => {
    while (left-- > 0) {
      const body = { one_time_keys: { [userId]: { [deviceId]: CURVE } } }
      const answer = await client.ask('POST', 'v3/keys/claim', token, body)
      const users = answer['one_time_keys'] as Record<string, Record<string, object>>
      claimed.push(Object.keys(users[userId]?.[deviceId] ?? {})[0])
    }
  }
  await Promise.all(claiming.map(claimOn))
  return claimed
}

/** Reads the final pool and checks the whole history. */
async function checkRecorded(client: RecordingClient, { token }: Device): Promise<void> {
  await client.ask('GET', 'unstable/dev.latchkey/keys/pool?limit=1000', token)
  assert.deepEqual(checkHistory(client.exchanges).violations, [])
}
