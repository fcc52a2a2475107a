/** The counts of inboxes that a PostgreSQL process remembers, when they are dropped during a count. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { skipWithoutPostgres as skip } from '@latchkey/testing/test-schema.ts'
import pg from 'pg'
import { DEFAULT_POOL_POLICY } from '../../src/pool/policy.ts'
import { type Core } from '../../src/store/postgres/core.ts'
import { Inboxes } from '../../src/store/postgres/inboxes.ts'
import { freshSchema, openProxied } from '../store-contract/postgres-store.ts'
import { login } from '../store-contract/test-device.ts'
import { NOW, sendMany } from '../support/store-calls.ts'

test('an inbox whose messages are confirmed while it is counted is counted whole the next time', {
  skip,
}, async () => {
  const schema = await freshSchema()
  const { store, close } = await openProxied(schema, DEFAULT_POOL_POLICY)
  const client = new pg.Client({ connectionString: schema.database })
  try {
    await client.connect()
    await client.query(`set search_path to ${new URL(schema.database).searchParams.get('schema')}`)
    client.setTypeParser(pg.types.builtins.INT8, Number)
    const session = await login(store, NOW)
    const { deviceRef } = session
    await sendMany(store, session, 10)
    const tx = {
      all: async (sql: string, ...values: unknown[]) => (await client.query(sql, values)).rows,
    } as unknown as Parameters<Inboxes['over']>[0]
    const inboxes: Core['inboxes'] = new Inboxes({ inboxMessages: 10, inboxLength: 1_000_000 })
    const oneMore = new Map([[deviceRef, { messages: 1, length: 10 }]])
    const load = new Map([[deviceRef, { messages: 0, length: 0 }]])
    assert.deepEqual(await inboxes.over(tx, load), [])
    const counted = inboxes.over(tx, load)
    inboxes.forget(deviceRef)
    await counted
    assert.equal((await inboxes.over(tx, oneMore)).length, 1)
  } finally {
    await client.end()
    await close()
    await schema.drop()
  }
})
