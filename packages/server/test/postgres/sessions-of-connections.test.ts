/**
 * Databases whose defaults are not PostgreSQL's, and poolers in between (issue 11, C6): a real pgbouncer in session
 * mode works, one in transaction mode is noticed, and nothing is issued twice. Needs LATCHKEY_TEST_POSTGRES.
 */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { noPgbouncer, startPgbouncer } from '@latchkey/testing/pgbouncer.ts'
import { startTestServer } from '@latchkey/testing/test-server.ts'
import pg from 'pg'
import { MatrixError } from '../../src/matrix-error.ts'
import { Postgres } from '../../src/store/postgres/database.ts'
import { StoreError } from '../../src/store/store-error.ts'
import { login } from '../store-contract/test-device.ts'
import { RewindableDatabase, skip } from '../support/rewindable-database.ts'
import { claim, keys, NOW, upload } from '../support/store-calls.ts'

for (const isolation of ['serializable', 'repeatable read']) {
  test(`no claim is refused on a database whose default is ${isolation}`, { skip }, async () => {
    await using database = await RewindableDatabase.create()
    await database.query(`alter database ${database.name} set default_transaction_isolation = '${isolation}'`)
    const [one, two] = [await database.open(), await database.open()]
    const session = await login(one.store, NOW)
    await upload(one.store, session, keys(0, 60))
    const issued = await Promise.all(
      Array.from({ length: 60 }, (_, n) => claim(n % 2 === 0 ? one.store : two.store)),
    )
    assert.equal(new Set(issued).size, 60)
  })
}

test('a schema that does not exist is an error that names the remedy', { skip }, async () => {
  await using database = await RewindableDatabase.create()
  const url = new URL(database.url)
  url.searchParams.set('schema', 'absent')
  await assert.rejects(
    database.open(database.newDirectory(), () => NOW, url.href),
    (error: unknown) => error instanceof StoreError && /no schema absent.*create schema/.test(error.message),
  )
})

test('any number of readiness checks share one connection to the database', { skip }, async () => {
  await using server = await startTestServer()
  const { store } = server.context
  let running = 0
  let most = 0
  const ready = store.ready.bind(store)
  // Counts the probes of the real store that run at the same time.
  store.ready = async () => {
    most = Math.max(most, ++running)
    await ready().finally(() => running--)
  }
  const answers = await Promise.all(Array.from({ length: 200 }, () => server.call('GET', '/health/ready')))
  assert.ok(answers.every(({ status }) => status === 200))
  assert.equal(most, 1)
})

suite('pgbouncer', { skip: skip || noPgbouncer }, () => {
  test('in session mode serves as a direct connection does', async () => {
    await using database = await RewindableDatabase.create()
    await using pooler = await startPgbouncer(database.url, 'session')
    const url = pooler.through(database.url)
    const one = await database.open(database.newDirectory(), () => NOW, url)
    const two = await database.open(database.newDirectory(), () => NOW, url)
    const session = await login(one.store, NOW)
    await upload(one.store, session, keys(0, 40))
    const issued = await Promise.all(
      Array.from({ length: 40 }, (_, n) => claim(n % 2 === 0 ? one.store : two.store)),
    )
    assert.equal(new Set(issued).size, 40)
    await one.store.close()
    await two.store.close()
  })

  test('in transaction mode is noticed by a transaction whose connection has another session', async () => {
    await using database = await RewindableDatabase.create()
    await using pooler = await startPgbouncer(database.url, 'transaction')
    const url = pooler.through(database.url)
    const db = new Postgres({ url, connections: 2 })
    const holder = new pg.Client({ connectionString: url })
    await db.run(`create table written (n int)`)
    // Two connections, each with a session of its own.
    const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const held = gates.map(({ promise }) => db.transaction(() => promise))
    await db.transaction(async () => {}).catch(() => {})
    for (const gate of gates) gate.resolve()
    await Promise.all(held)
    // The third one takes the session of one of them.
    await holder.connect()
    await holder.query('begin')
    const results = await Promise.allSettled(
      [1, 2].map((n) =>
        db.transaction(async (tx) => void (await tx.run(`insert into written values (${n})`))),
      ),
    )
    const refused = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []))
    assert.ok(refused.length > 0)
    for (const error of refused) {
      assert.ok(error instanceof MatrixError && error.status === 503)
      assert.match(error.message, /pooler in transaction mode.*session mode/s)
    }
    await holder.query('rollback')
    await holder.end()
    await db.close()
    const stored = await database.query(`select n from written`)
    assert.equal(stored.length, 2 - refused.length)
  })

  test('in transaction mode a busy store refuses requests with the remedy, and issues no key twice', async () => {
    await using database = await RewindableDatabase.create()
    const direct = await database.open()
    const session = await login(direct.store, NOW)
    await upload(direct.store, session, keys(0, 200))
    await using pooler = await startPgbouncer(database.url, 'transaction')
    const errors: unknown[] = []
    const issued: (string | undefined)[] = []
    const busy = async (): Promise<void> => {
      const { store } = await database.open(database.newDirectory(), () => NOW, pooler.through(database.url))
      for (let round = 0; round < 20 && errors.length === 0; round++) {
        const first = 300 + round * 4
        const answers = await Promise.allSettled([
          ...Array.from({ length: 4 }, () => claim(store)),
          ...Array.from({ length: 4 }, (_, n) => upload(store, session, keys(first + n, first + n + 1))),
        ])
        for (const answer of answers) {
          if (answer.status === 'rejected') errors.push(answer.reason)
          else if (typeof answer.value === 'string') issued.push(answer.value)
        }
      }
    }
    await busy().catch((error: unknown) => errors.push(error))
    assert.ok(errors.length > 0, 'the pooler was not noticed')
    for (const error of errors) assert.match(String(error), /pooler in transaction mode.*session mode/s)
    issued.push(await claim(direct.store))
    assert.equal(new Set(issued).size, issued.length)
  })
})
