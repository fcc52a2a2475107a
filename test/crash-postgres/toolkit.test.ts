/** Tests of the scenarios' tools: clusters, copies, replicas and the proxy. Latchkey itself is not involved. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import pg from 'pg'
import { copyCluster } from '@latchkey/testing/postgres-copy.ts'
import { startPostgresCluster } from '@latchkey/testing/postgres-cluster.ts'
import { isCommit } from '@latchkey/testing/postgres-messages.ts'
import { startReplica } from '@latchkey/testing/postgres-replica.ts'
import { fillDisk, makeRoom, noSmallDisk } from '@latchkey/testing/small-disk.ts'
import { TcpProxy } from '@latchkey/testing/tcp-proxy.ts'

type Queryable = { query<T extends object>(sql: string): Promise<T[]> }

async function numbers(cluster: Queryable): Promise<number[]> {
  return (await cluster.query<{ n: number }>('select n from t order by n')).map(({ n }) => n)
}

test('a crashed or stopped cluster restarts with its committed rows, and is removed after the test', async () => {
  const cluster = await startPostgresCluster()
  await cluster.query('create table t (n int)')
  for (const [n, mode] of (['immediate', 'fast'] as const).entries()) {
    await cluster.query('insert into t values ($1)', n)
    await cluster.shutDown(mode)
    await assert.rejects(cluster.query('select 1'))
    await cluster.start()
  }
  assert.deepEqual(await numbers(cluster), [0, 1])
  await cluster.stop()
  assert.ok(!existsSync(cluster.directory))
})

test('a copy has exactly the rows committed before it, in every start mode', async () => {
  await using cluster = await startPostgresCluster()
  await cluster.query('create table t (n int)')
  await cluster.query('insert into t values (1)')
  const copies = [await copyCluster(cluster), await copyCluster(cluster), await copyCluster(cluster)]
  await cluster.query('insert into t values (2)')
  for (const [i, as] of (['plain', 'recovery', 'standby'] as const).entries()) {
    await using copy = (await copies[i]?.start({ as })) ?? assert.fail()
    assert.deepEqual(await numbers(copy), [1], as)
    const [row] = await copy.query<{ standby: boolean }>('select pg_is_in_recovery() as standby')
    assert.equal(row?.standby, as === 'standby')
  }
  await cluster.shutDown('fast')
  const cold = await copyCluster(cluster)
  await using copy = await cold.start({ port: Number(new URL(cluster.url).port) })
  assert.deepEqual(await numbers(copy), [1, 2])
})

test('a paused replica misses the primary’s commits and is promoted without them', async () => {
  await using cluster = await startPostgresCluster({ settings: { wal_keep_size: '256MB' } })
  await cluster.query('create table t (n int)')
  await using replica = await startReplica(cluster)
  await cluster.query('insert into t values (1)')
  await replica.caughtUp()
  assert.deepEqual(await numbers(replica.cluster), [1])
  replica.pause()
  await cluster.query('insert into t values (2)')
  replica.resume()
  await replica.caughtUp()
  replica.pause()
  await cluster.query('insert into t values (3)')
  const proxy = await TcpProxy.before(new URL(cluster.url))
  const client = new pg.Client({ connectionString: proxy.through(cluster.url) })
  client.on('error', () => {})
  await client.connect()
  await replica.promote()
  proxy.moveTo(new URL(replica.cluster.url))
  await assert.rejects(client.query('select 1'))
  const moved = new pg.Client({ connectionString: proxy.through(cluster.url) })
  await moved.connect()
  await moved.query('insert into t values (4)')
  await moved.end()
  await proxy.close()
  assert.deepEqual(await numbers(replica.cluster), [1, 2, 4])
})

test('the proxy stops a commit before the server receives it or before the client gets the answer', async () => {
  await using cluster = await startPostgresCluster()
  await cluster.query('create table t (n int)')
  const proxy = await TcpProxy.before(new URL(cluster.url))
  const insert = async (n: number): Promise<unknown> => {
    const client = new pg.Client({ connectionString: proxy.through(cluster.url) })
    client.on('error', () => {})
    await client.connect()
    try {
      await client.query('begin')
      await client.query('insert into t values ($1)', [n])
      return await client.query('commit')
    } finally {
      await client.end().catch(() => {})
    }
  }
  for (const [n, moment] of (['sent', 'answered'] as const).entries()) {
    const caught = proxy.catch(isCommit, moment)
    const inserted = insert(n)
    const commit = await caught
    assert.deepEqual(await numbers(cluster), moment === 'sent' ? [] : [1])
    commit.cut()
    await assert.rejects(inserted)
  }
  const caught = proxy.catch(isCommit, 'answered')
  const inserted = insert(2)
  ;(await caught).pass()
  await inserted
  assert.deepEqual(await numbers(cluster), [1, 2])
  proxy.cutAfter(150)
  await assert.rejects(insert(3))
  proxy.refuse()
  await assert.rejects(insert(3))
  proxy.accept()
  proxy.fallSilent()
  const waiting = insert(3)
  proxy.speak()
  await waiting
  assert.deepEqual(await numbers(cluster), [1, 2, 3])
  await proxy.close()
})

test('a cluster on a small disk fails when it is full, and continues when there is space', {
  skip: noSmallDisk(),
}, async () => {
  await using cluster = await startPostgresCluster({ disk: { of: 'everything', bytes: 96 << 20 } })
  const disk = cluster.home.disk ?? assert.fail()
  await cluster.query('create table t (n int, text text)')
  fillDisk(disk)
  await assert.rejects(
    cluster.query(`insert into t select n, repeat('x', 1000) from generate_series(1, 1000) n`),
    {
      code: '53100',
    },
  )
  makeRoom(disk)
  await cluster.query('insert into t values (1)')
  assert.deepEqual(await numbers(cluster), [1])
})
