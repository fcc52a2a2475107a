/**
 * A transaction runs again after a deadlock (store/postgres/database.ts). A trigger reports one at the commit, after
 * every statement of the change, because two real transactions would meet there only by chance.
 */
import { test } from 'node:test'
import { skipWithoutPostgres } from '@latchkey/testing/test-schema.ts'
import { DEFAULT_CONFIG, postgresConnection } from '../../src/config/config.ts'
import type { PoolPolicy } from '../../src/pool/policy.ts'
import { Postgres } from '../../src/store/postgres/database.ts'
import { type RerunningStore, testForcedRerun } from '../store-contract/forced-rerun.ts'
import { freshSchema, openProxied } from '../store-contract/postgres-store.ts'

/** A value of the sequence is not rolled back, so the second run of the transaction commits. */
const FAULT = [
  `create sequence reruns`,
  `create function deadlock_once() returns trigger language plpgsql as $$
   begin
     if nextval('reruns') = 1 then raise exception 'deadlock detected' using errcode = '40P01'; end if;
     return null;
   end $$`,
  ...['devices', 'conflicts'].map(
    (table) => `create constraint trigger deadlock after insert or update on ${table}
      deferrable initially deferred for each row execute function deadlock_once()`,
  ),
  `select setval('reruns', 1)`,
]

async function open(policy: PoolPolicy): Promise<RerunningStore> {
  const schema = await freshSchema()
  const { store, close } = await openProxied(schema, policy)
  const db = new Postgres({
    ...postgresConnection({ ...DEFAULT_CONFIG, database: schema.database }),
    connections: 1,
  })
  for (const statement of FAULT) await db.all(statement)
  return {
    store,
    async rerun(change) {
      await db.all(`select setval('reruns', 1, false)`)
      return change()
    },
    async close() {
      await db.close()
      await close()
      await schema.drop()
    },
  }
}

if (process.env['LATCHKEY_TEST_POSTGRES']) testForcedRerun('postgres', open)
else test('a forced rerun on PostgreSQL', { skip: skipWithoutPostgres })
