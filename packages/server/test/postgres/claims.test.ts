/**
 * Claims of one process share a transaction (store/postgres/claim-batcher.ts); a claim that waits for a lock does not
 * delay later ones. Needs LATCHKEY_TEST_POSTGRES (@latchkey/testing/test-schema.ts).
 */
import { keyPools } from '@latchkey/testing/key-pools.ts'
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { type KeyId, SIGNED_CURVE25519, type UserId } from '@latchkey/protocol'
import pg from 'pg'
import { within } from '@latchkey/testing/within.ts'
import { DEFAULT_CONFIG, postgresOptions } from '../../src/config/config.ts'
import type { Store } from '../../src/store.ts'
import { openPostgresStore } from '../../src/store/postgres/index.ts'
import { claimer, DEVICE, login, makeKey } from '../store-contract/test-device.ts'
import { openTestSchema, skipWithoutPostgres as skip } from '@latchkey/testing/test-schema.ts'

/** Shorter than a claim waits for a lock before it gives up. */
const DEADLINE_MS = 4_000

test('while one pool is locked, claims of other devices continue, and its own claim gets a key afterwards', {
  skip,
}, async () => {
  const schema = await openTestSchema(randomBytes(8).toString('hex'))
  assert.ok(schema)
  const store = await openPostgresStore({
    ...postgresOptions({ ...DEFAULT_CONFIG, database: schema.database }),
    fence: { directory: schema.witnesses },
    now: Date.now,
  })
  const url = new URL(schema.database)
  const other = new pg.Client({
    connectionString: schema.database,
    options: `-c search_path=${url.searchParams.get('schema') ?? ''}`,
  })
  await other.connect()
  try {
    const [locked, free] = ['@locked:test.example', '@free:test.example'] as UserId[]
    assert.ok(locked !== undefined && free !== undefined)
    for (const user of [locked, free]) await publish(store, user)
    await other.query('begin')
    await other.query(
      `select 1 from pools join devices using (device_num) join users using (user_num)
       where user_id = $1 for update of pools`,
      [locked],
    )
    const waiting = claim(store, locked)
    // Later claims do not share the transaction of the waiting claim.
    await within('the claim waits', isBlocking(other), DEADLINE_MS)
    const got = await within(
      'claims during one that waits',
      (async () => [await claim(store, free), await claim(store, free)])(),
      DEADLINE_MS,
    )
    assert.deepEqual(got, ['A', 'B'])
    await other.query('rollback')
    assert.equal(await waiting, 'A')
  } finally {
    await other.end()
    await store.close()
    await schema.drop()
  }
})

/** Resolves when another session waits for a lock that this session holds. */
async function isBlocking(session: pg.Client): Promise<void> {
  for (;;) {
    const { rowCount } = await session.query(
      `select 1 from pg_locks where not granted and pg_backend_pid() = any (pg_blocking_pids(pid))`,
    )
    if (rowCount !== null && rowCount > 0) return
  }
}

async function publish(store: Store, user: UserId): Promise<void> {
  const session = await login(store, 1, user)
  const oneTimeKeys = ['A', 'B'].map((id, n) => makeKey(SIGNED_CURVE25519, id, n))
  await keyPools(store).upload({ session, oneTimeKeys, fallbackKeys: [], now: 1 })
}

async function claim(store: Store, userId: UserId): Promise<KeyId | undefined> {
  const targets = [{ userId, deviceId: DEVICE, algorithm: SIGNED_CURVE25519 }]
  const [key] = await store.pools.claim({ claimer: claimer('bob'), targets, now: 2 })
  return key?.keyId
}
