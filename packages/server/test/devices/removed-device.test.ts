/**
 * The rows that outlive a removed device (issue 11, B4): a device leaves traces everywhere and is removed; then every
 * table is read. docs/development/storage.md lists the tables that keep rows about it, and why; this test compares the
 * two.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { test } from 'node:test'
import { tableUnder } from '@latchkey/testing/markdown-table.ts'
import { REPOSITORY } from '@latchkey/testing/run-latchkey.ts'
import {
  crossSigningBody,
  crossSigningPairs,
  deviceKeysOf,
  signingKeyPair,
} from '@latchkey/testing/signing.ts'
import {
  claimNames,
  CLIENT,
  CURVE,
  fallback,
  ids,
  keys,
  ok,
  reset,
  send,
  sync,
  trySync,
  tryUpload,
  upload,
} from '@latchkey/testing/test-client.ts'
import { type AnyJson, startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'
import { DEFAULT_CONFIG, postgresConnection } from '../../src/config/config.ts'
import { Postgres } from '../../src/store/postgres/database.ts'

const LISTED = tableUnder(
  readFileSync(join(REPOSITORY, 'docs/development/storage.md'), 'utf8'),
  '## Rows that outlive a removed device',
)
/** Tables that every write changes, and those of the user and of the installation. */
const NOT_OF_A_DEVICE = [
  'meta',
  'stream',
  'wakes',
  'writers',
  'looks',
  'users',
  'tracked_users',
  'checkpoints',
]
const MARK = 'Trace'

/** The rows of every table, as JSON. */
type Dump = ReadonlyMap<string, readonly string[]>

async function dump(server: TestServer): Promise<Dump> {
  const { config } = server.context
  if (config.database !== undefined) return dumpPostgres({ ...config, database: config.database })
  const db = new DatabaseSync(join(server.dataDir, 'latchkey.db'), { readOnly: true })
  try {
    const tables = db
      .prepare(`select name from sqlite_schema where type = 'table' and name not like 'sqlite_%'`)
      .all()
    return new Map(
      tables.map(({ name }) => [
        String(name),
        db
          .prepare(`select * from ${name}`)
          .all()
          .map((row) => JSON.stringify(row)),
      ]),
    )
  } finally {
    db.close()
  }
}

async function dumpPostgres(config: Parameters<typeof postgresConnection>[0]): Promise<Dump> {
  const db = new Postgres({ ...postgresConnection(config), connections: 1 })
  try {
    const tables = await db.all<{ name: string }>(
      `select table_name::text as name from information_schema.tables where table_schema = current_schema()`,
    )
    const rows = new Map<string, string[]>()
    for (const { name } of tables) {
      const found = await db.all<{ row: string }>(`select to_jsonb(t)::text as row from ${name} as t`)
      rows.set(
        name,
        found.map(({ row }) => row),
      )
    }
    return rows
  } finally {
    await db.close()
  }
}

/** Rows that are in `after` and not in `before`, by table. */
function added(before: Dump, after: Dump): Map<string, string[]> {
  const found = new Map<string, string[]>()
  for (const [table, rows] of after) {
    const known = new Set(before.get(table))
    const fresh = rows.filter((row) => !known.has(row))
    if (fresh.length > 0 && !NOT_OF_A_DEVICE.includes(table)) found.set(table, fresh)
  }
  return found
}

test('every table forgets a removed device, except what storage.md lists', async () => {
  const pools = { ...DEFAULT_CONFIG.pools, onConflict: 'heal' as const }
  await using server = await startTestServer({ pools })
  const first = await server.login('alice', 'FIRST')
  const bob = await server.login('bob', 'BOB')
  const carol = await server.login('carol', 'CAROL')
  await upload(server, bob, { one_time_keys: keys(ids(5, 500), 'bob') })
  const pairs = crossSigningPairs()
  const crossSigning = crossSigningBody(first.userId, pairs)
  ok(
    await server.call('POST', `${CLIENT}/keys/device_signing/upload`, {
      token: first.token,
      body: crossSigning,
    }),
  )
  const before = await dump(server)

  const device = await server.login('alice', `${MARK}Device`)
  const { token, userId, deviceId } = device
  ok(
    await server.call('PUT', `${CLIENT}/devices/${deviceId}`, {
      token,
      body: { display_name: `${MARK} name` },
    }),
  )
  // Two identities: the former one is remembered.
  await upload(server, device, { device_keys: deviceKeysOf(device, signingKeyPair()) })
  const identity = signingKeyPair()
  const device_keys = deviceKeysOf(device, identity)
  await upload(server, device, { device_keys })
  const signed = (object: AnyJson): AnyJson => identity.sign(userId, object, deviceId)
  const oneTimeKeys = (from: number): AnyJson =>
    Object.fromEntries(
      Object.entries(keys(ids(6, from), MARK)).map(([name, key]) => [name, signed(key as AnyJson)]),
    )
  const fallbackKeys = (keyId: string): AnyJson =>
    Object.fromEntries(Object.entries(fallback(keyId)).map(([name, key]) => [name, signed(key as AnyJson)]))
  await upload(server, device, { one_time_keys: oneTimeKeys(0), fallback_keys: fallbackKeys('OLD') })
  await upload(server, device, { fallback_keys: fallbackKeys('NEW') })
  await claimNames(server, bob, device, 7)
  await upload(server, device, { one_time_keys: oneTimeKeys(10) })
  await reset(server, device, {
    key_ids: [`${CURVE}:${ids(1, 10)[0]}`],
    'dev.latchkey.request_id': `${MARK} request`,
  })
  // A conflict, whose refusal is remembered.
  const [conflicting = ''] = Object.keys(keys(ids(1, 11)))
  const other = signed(Object.values(keys(['OTHER'], 'other'))[0] as AnyJson)
  assert.equal((await tryUpload(server, device, { one_time_keys: { [conflicting]: other } })).status, 400)
  // Messages from it, to it, and a claim by it.
  ok(await send(server, device, { [bob.userId]: { [bob.deviceId]: {} } }, 'from'))
  ok(await send(server, carol, { [userId]: { [deviceId]: { text: `${MARK} content` } } }, 'to'))
  await claimNames(server, device, bob, 1)
  ok(
    await server.call('POST', `${CLIENT}/keys/signatures/upload`, {
      token,
      body: {
        [userId]: {
          [deviceId]: pairs.selfSigning.sign(userId, device_keys),
          [pairs.master.publicKey]: signed(crossSigning['master_key']),
        },
      },
    }),
  )
  await sync(server, device)
  // An unfinished authentication.
  const challenge = await server.call('POST', `${CLIENT}/delete_devices`, { token, body: { devices: ['X'] } })
  assert.equal(challenge.status, 401)
  const left = added(before, await dump(server))
  for (const table of ['inbox', 'sent_transactions', 'reset_answers', 'conflicts', 'former_identities'])
    assert.ok(left.has(table), `the device left no trace in ${table}`)
  assert.equal(left.get('key_signatures')?.length, 2)

  ok(await server.call('POST', `${CLIENT}/logout`, { token }))
  assert.equal((await trySync(server, device)).status, 401)
  // Rows that concern others: the transaction of Carol, and the key of Bob that the device claimed.
  await upload(server, bob, { one_time_keys: keys(ids(1, 600), 'bob') })
  ok(await server.call('POST', `${CLIENT}/logout`, { token: carol.token }))
  const { next_batch } = await sync(server, bob)
  await sync(server, bob, { since: next_batch })

  const after = added(before, await dump(server))
  const isPostgres = server.context.config.database !== undefined
  const listed = LISTED.map(([table = '']) => table)
    .filter((table) => isPostgres || !table.includes('PostgreSQL'))
    .map((table) => table.split('`')[1])
  assert.deepEqual([...after.keys()].sort(), listed.sort())

  const signer = `ed25519:${deviceId}`
  const row = after.get('devices')?.find((json) => json.includes(deviceId))
  assert.ok(row !== undefined && !row.includes('127.0.0.1'), 'the address is still stored')
  const text = [...after.values()].flat().join('\n')
  const publicKeys = [identity.publicKey, device_keys.keys[`curve25519:${deviceId}`]]
  for (const secret of [`${MARK} name`, `${MARK} content`, `${MARK} request`, ...publicKeys])
    assert.ok(!text.includes(secret), `${secret} is still stored`)
  // The sweep deletes the texts of issued keys.
  const withSignature = [...after].filter(
    ([table, rows]) => table !== 'one_time_keys' && rows.join().includes(signer),
  )
  assert.deepEqual(
    withSignature.map(([table]) => table),
    [],
    'a signature by the device is still stored',
  )
})
