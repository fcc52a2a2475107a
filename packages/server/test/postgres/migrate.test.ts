/**
 * A PostgreSQL database of each older schema, with keys in it, after `latchkey migrate`. Needs LATCHKEY_TEST_POSTGRES.
 */
import { keyPools } from '@latchkey/testing/key-pools.ts'
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { keyName } from '@latchkey/protocol'
import { DEFAULT_CONFIG, postgresConnection, postgresOptions } from '../../src/config/config.ts'
import { materialHash } from '../../src/pool/key.ts'
import { Postgres } from '../../src/store/postgres/database.ts'
import { migratePostgres, openPostgresStore } from '../../src/store/postgres/index.ts'
import { migrations } from '../../src/store/postgres/migrations/index.ts'
import { KNOWN_SCHEMA } from '../../src/store/postgres/schema.ts'
import { claimer, DEVICE, login, makeKey, USER } from '../store-contract/test-device.ts'
import { openTestSchema, skipWithoutPostgres as skip } from '@latchkey/testing/test-schema.ts'

const KEYS = Array.from({ length: 20 }, (_, n) => makeKey('signed_curve25519', `K${n}`, n))
const ISSUED = 5

/** A device with 20 keys, the first 5 of them issued, in statements that all schemas accept. */
async function fill(db: Postgres): Promise<void> {
  await db.run(
    `insert into stream (epoch) values ('epoch');
     insert into users (user_id, password_hash, created_ts) values ('${USER}', '', 1);
     insert into devices (user_num, device_id, created_ts, fence) select user_num, '${DEVICE}', 1, 0 from users;
     insert into claimers (name) values ('@bob:test.example DEV');
     insert into pools (device_num, algorithm, head, last_seq, count, told)
       select device_num, 'signed_curve25519', ${ISSUED + 1}, ${KEYS.length}, ${KEYS.length - ISSUED}, 15 from devices;
     insert into issues (pool_num, seq, ts, claimer_num)
       select pool_num, seq, 1, claimer_num from pools, claimers, generate_series(1, ${ISSUED}) as seq`,
  )
  await db.run(
    `insert into one_time_keys (pool_num, seq, uploaded_ts, key_id, material, json)
     select pool_num, seq, 1, key_id, material, json
     from pools, unnest($1::text[], $2::bytea[], $3::text[]) with ordinality as key (key_id, material, json, seq)`,
    KEYS.map((key) => key.keyId),
    KEYS.map((key) => `\\x${materialHash(key.material)}`),
    KEYS.map((key) => key.json),
  )
}

for (let older = 1; older < KNOWN_SCHEMA; older++) {
  test(`keys of schema ${older} are issued in their order, and issued ones are remembered`, {
    skip,
  }, async () => {
    const schema = await openTestSchema(randomBytes(8).toString('hex'))
    assert.ok(schema)
    const config = { ...DEFAULT_CONFIG, database: schema.database, fenceDir: schema.witnesses }
    const db = new Postgres({ ...postgresConnection(config), connections: 1 })
    for (const sql of migrations.slice(0, older)) await db.run(sql)
    await fill(db)
    await db.run(
      `insert into meta values ('schema', '${older}'), ('server_name', 'test.example') on conflict do nothing`,
    )
    assert.deepEqual(await migratePostgres(postgresConnection(config), { dryRun: false }), {
      from: older,
      to: KNOWN_SCHEMA,
    })
    const store = await openPostgresStore({ ...postgresOptions(config), now: Date.now })
    try {
      const session = await login(store, 2)
      const { outcomes } = await keyPools(store).upload({
        session,
        oneTimeKeys: KEYS,
        fallbackKeys: [],
        now: 2,
      })
      assert.deepEqual(
        KEYS.map((key) => outcomes.get(keyName(key.algorithm, key.keyId))),
        KEYS.map((_, n) => (n < ISSUED ? 'already_issued' : 'already_stored')),
      )
      const target = {
        userId: session.userId,
        deviceId: session.deviceId,
        algorithm: makeKey('signed_curve25519', 'K', 0).algorithm,
      }
      for (const { keyId, json } of KEYS.slice(ISSUED)) {
        const [result] = await store.pools.claim({ claimer: claimer('carol'), targets: [target], now: 3 })
        assert.deepEqual([result?.keyId, result?.json], [keyId, json])
      }
    } finally {
      await store.close()
      await db.close()
      await schema.drop()
    }
  })
}
