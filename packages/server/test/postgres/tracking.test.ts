/** A device list that changes while a user begins to track it: the query reads the change, or a sync is woken. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { skipWithoutPostgres as skip } from '@latchkey/testing/test-schema.ts'
import type { UserId } from '@latchkey/protocol'
import pg from 'pg'
import { DEFAULT_POOL_POLICY } from '../../src/pool/policy.ts'
import { freshSchema, openProxied } from '../store-contract/postgres-store.ts'
import { login } from '../store-contract/test-device.ts'
import { NOW } from '../support/store-calls.ts'

test('a query that begins to track a user during a change of the device list reads the change', {
  skip,
}, async () => {
  const schema = await freshSchema()
  const { store, close } = await openProxied(schema, DEFAULT_POOL_POLICY)
  const blocker = new pg.Client({ connectionString: schema.database })
  // A transaction sees the activity of its start only.
  const observer = new pg.Client({ connectionString: schema.database })
  try {
    await Promise.all([blocker.connect(), observer.connect()])
    await blocker.query(`set search_path to ${new URL(schema.database).searchParams.get('schema')}`)
    const alice = await login(store, NOW)
    const bob = await login(store, NOW, '@bob:test.example' as UserId)
    let isWoken = false
    store.sync.subscribe({
      device: () => {},
      users: (users) => (isWoken ||= users.includes(alice.userRef)),
      everyone: () => {},
    })
    // The change waits for this lock when it knows whom it concerns.
    await blocker.query('begin')
    await blocker.query('lock table wakes in share mode')
    const renamed = store.devices.rename(bob, bob.deviceId, 'new name')
    while (!(await waits(observer, 'insert into wakes'))) continue
    const seen: number[] = []
    const tracked = store.devices.track(alice, [bob.userId]).then(async () => {
      seen.push((await store.sync.end()).position)
    })
    while (seen.length === 0 && !(await waits(observer, 'insert into tracked_users'))) continue
    await blocker.query('commit')
    await renamed
    await tracked
    const end = (await store.sync.end()).position
    const missed = await store.devices.changedSince(alice.userRef, seen[0] ?? 0, end)
    assert.ok(isWoken || missed.length === 0, 'the query has not read the change, and no sync is woken')
  } finally {
    await Promise.all([blocker.end(), observer.end()])
    await close()
    await schema.drop()
  }
})

async function waits(client: pg.Client, statement: string): Promise<boolean> {
  const { rowCount } = await client.query(
    `select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%' || $1 || '%'`,
    [statement],
  )
  return rowCount !== 0
}
