/**
 * One device, many claimers, several processes: each key once, none missed while one is left, in upload order, to the last
 * key and beyond it (key-pool.md "Once", "No false miss", "Order"). Judged by plain counting where everything is known, and
 * by the checker of histories, which knows nothing of the server.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, test } from 'node:test'
import { checkHistory } from '../../bench/lib/history.ts'
import { type Device, type Processes, startProcesses, Witness } from './processes.ts'

const PROCESSES = [1, 2, 4]
const CLAIMERS = [2, 8, 40, 200]
const CURVE = 'signed_curve25519'
/** Of one upload: the keys come in several, so that upload order is more than the order of IDs. */
const UPLOAD = 20
/** Claims beyond the last key. */
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
      test(`${simultaneous} claimers of one device at ${count} processes get each key once, in order, then ${rest}`, async () => {
        const { witness, owner, taking } = begin(count, simultaneous)
        for (let n = 0; n < keys; n += UPLOAD) await upload(witness, owner, Math.min(UPLOAD, keys - n))
        const last = fallback ? await uploadFallback(witness, owner) : undefined
        const claimed = await claimAll(witness, taking, owner, keys + BEYOND)
        const oneTime = claimed.filter((key) => key !== undefined && key !== last)
        assert.equal(oneTime.length, keys, 'as many claims got a one-time key as there were')
        assert.equal(new Set(oneTime).size, keys, 'no key twice')
        assert.equal(claimed.filter((key) => key === last).length, BEYOND, `the others got ${rest}`)
        await judge(witness, owner)
      })
    }

    test(`${simultaneous} claimers of one device at ${count} processes miss nothing and overtake nothing while it uploads`, async () => {
      const { witness, owner, taking } = begin(count, simultaneous)
      await uploadFallback(witness, owner)
      await upload(witness, owner, UPLOAD)
      const uploads = (async () => {
        for (let n = UPLOAD; n < keys; n += UPLOAD) await upload(witness, owner, UPLOAD)
      })()
      const claimed = await claimAll(witness, taking, owner, keys)
      await uploads
      assert.ok(new Set(claimed).size > 1)
      await judge(witness, owner)
    })
  }
}

type Begun = { readonly witness: Witness; readonly owner: Device; readonly taking: readonly Device[] }

function begin(count: number, simultaneous: number): Begun {
  const owner = owners.pop()
  assert.ok(owner)
  const taking = claimers.slice(0, simultaneous)
  return { witness: new Witness(processes.urls.slice(0, count), [owner, ...taking]), owner, taking }
}

/** Keys under random IDs. */
async function upload(witness: Witness, { token }: Device, count: number): Promise<void> {
  const keys = Array.from({ length: count }, () => [
    `${CURVE}:${randomBytes(6).toString('hex')}`,
    { key: randomBytes(32).toString('base64').slice(0, 43), signatures: {} },
  ])
  await witness.ask('POST', 'v3/keys/upload', token, { one_time_keys: Object.fromEntries(keys) })
}

/** Returns its name. */
async function uploadFallback(witness: Witness, { token }: Device): Promise<string> {
  const key = { key: randomBytes(32).toString('base64').slice(0, 43), signatures: {}, fallback: true }
  await witness.ask('POST', 'v3/keys/upload', token, { fallback_keys: { [`${CURVE}:fallback`]: key } })
  return `${CURVE}:fallback`
}

/** The claimers claim one key after the other, all at once, until so many claims were made. Returns the keys' names. */
async function claimAll(
  witness: Witness,
  taking: readonly Device[],
  { userId, deviceId }: Device,
  total: number,
): Promise<(string | undefined)[]> {
  const claimed: (string | undefined)[] = []
  let left = total
  const claimOn = async ({ token }: Device): Promise<void> => {
    while (left-- > 0) {
      const body = { one_time_keys: { [userId]: { [deviceId]: CURVE } } }
      const answer = await witness.ask('POST', 'v3/keys/claim', token, body)
      const users = answer['one_time_keys'] as Record<string, Record<string, object>>
      claimed.push(Object.keys(users[userId]?.[deviceId] ?? {})[0])
    }
  }
  await Promise.all(taking.map(claimOn))
  return claimed
}

/** Reads the pool as it stands in the end, and has the whole history judged. */
async function judge(witness: Witness, { token }: Device): Promise<void> {
  await witness.ask('GET', 'unstable/dev.latchkey/keys/pool?limit=1000', token)
  assert.deepEqual(checkHistory(witness.exchanges).violations, [])
}
