/** `latchkey import sqlite`: every fault leaves both databases unchanged. Needs LATCHKEY_TEST_POSTGRES. */
import assert from 'node:assert/strict'
import { cpSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { test } from 'node:test'
import pg from 'pg'
import {
  embeddedQuery,
  imported,
  ImportHome,
  importInto,
  query,
  refusedWith,
  skip,
  tablesOf,
} from '../support/import-home.ts'
import { LATCHKEY, runLatchkey, RunningProcess } from '@latchkey/testing/run-latchkey.ts'
import { claim, claimNames, CLIENT, ids, keys, named, ok, upload } from '@latchkey/testing/test-client.ts'
import type { TestServer } from '@latchkey/testing/test-server.ts'

test('a marked installation is neither served nor imported twice, and the mark can be removed', {
  skip,
}, async () => {
  await using home = new ImportHome()
  const dataDir = home.directory()
  const before = await home.serve({ dataDir })
  await before.login('alice')
  await before.close()
  const [database, other] = [await home.database(), await home.database()]
  await imported(database, join(dataDir, 'latchkey.db'))
  const password = new URL(database).password
  for (const command of [
    ['serve', '--port', '0'],
    ['user', 'add', 'bob', '--password-stdin'],
  ]) {
    const ended = await runLatchkey([...command, '--data', dataDir], { stdin: 'correct horse' })
    refusedWith(ended, /was moved to postgres:.*--database.*--undo/)
    assert.ok(password === '' || !ended.stderr.includes(password), ended.stderr)
  }
  refusedWith(await importInto(database, dataDir), /already has this installation, with 1 users/)
  refusedWith(await importInto(other, dataDir), /was moved to .* already/)
  assert.match((await imported(database, dataDir, '--undo')).stdout, /can be served again.*fence raise/)
  refusedWith(await importInto(database, dataDir, '--undo'), /not marked/)
  await (await home.serve({ dataDir })).close()
  refusedWith(await importInto(database, dataDir), /already has this installation/)
  const { stdout } = await imported(other, dataDir, '--keep-source')
  assert.match(stdout, /Never serve both/)
  await home.serve({ dataDir })
})

test('a dry run runs the whole import and changes nothing', { skip }, async () => {
  await using home = new ImportHome()
  const before = await home.serve({ dataDir: home.directory() })
  const alice = await before.login('alice')
  await upload(before, alice, { one_time_keys: keys(ids(5)) })
  await claim(before, alice, alice)
  const copy = home.crashed(before)
  const state = (): unknown[] => [
    embeddedQuery(copy, `select * from issue_log`),
    embeddedQuery(copy, `select * from one_time_keys`),
    embeddedQuery(copy, `select * from meta`),
  ]
  const untouched = state()
  const database = await home.database()
  const { stdout } = await imported(database, copy, '--dry-run')
  assert.match(stdout, /can be moved .* 5 one-time keys \(4 of them available\)/)
  assert.equal(await tablesOf(database), 0)
  assert.deepEqual(state(), untouched)
  await imported(database, copy)
  refusedWith(await importInto(await home.database(), copy, '--dry-run'), /was moved/)
})

test('a source or target that cannot be used is refused in one line, and the database is unchanged', {
  skip,
}, async () => {
  await using home = new ImportHome()
  const dataDir = home.directory()
  const server = await home.serve({ dataDir })
  await server.login('alice')
  const database = await home.database()
  refusedWith(await importInto(database, dataDir), /Another Latchkey process/)
  await server.close()
  const file = join(dataDir, 'latchkey.db')
  refusedWith(await importInto(database, join(home.directory(), 'latchkey.db')), /There is no database/)
  const misnamed = join(home.directory(), 'backup.db')
  cpSync(file, misnamed)
  refusedWith(await importInto(database, misnamed), /latchkey\.db/)
  const copyOf = (change: (copy: string) => void): string => {
    const copy = home.directory()
    cpSync(file, join(copy, 'latchkey.db'))
    change(join(copy, 'latchkey.db'))
    return copy
  }
  const withSql = (sql: string) => (copy: string) => {
    const db = new DatabaseSync(copy)
    db.exec(sql)
    db.close()
  }
  const noDatabase = copyOf((copy) => writeFileSync(copy, 'No database. '.repeat(1000)))
  refusedWith(await importInto(database, noDatabase), /damaged/)
  refusedWith(await importInto(database, copyOf(withSql('pragma user_version = 99'))), /schema 99/)
  const foreign = home.directory()
  withSql('create table t (a)')(join(foreign, 'latchkey.db'))
  refusedWith(await importInto(database, foreign), /is not a Latchkey database/)
  refusedWith(await runLatchkey(['import', 'sqlite', dataDir]), /--database/)
  assert.equal(await tablesOf(database), 0)

  // The target: in use, not empty, of an older schema, unreachable.
  const running = await home.serve({ dataDir: home.directory(), database })
  refusedWith(await importInto(database, dataDir), /stop them first/)
  await running.login('bob')
  refusedWith(await importInto(database, dataDir), /not empty: it has 1 users/)
  await running.close()
  await query(database, `delete from users`)
  refusedWith(await importInto(database, dataDir), /not empty: its table/)
  const old = await home.database()
  await query(old, `create table meta (key text, value text); insert into meta values ('schema', '1')`)
  refusedWith(await importInto(old, dataDir), /latchkey migrate/)
  const unreachable = 'postgres://me:hunter2@127.0.0.1:1/latchkey'
  const ended = await importInto(unreachable, dataDir)
  refusedWith(ended, /cannot be used/)
  assert.ok(!ended.stderr.includes('hunter2'))

  // A database that was served and stopped without ever having a user is empty.
  const served = await home.database()
  await (await home.serve({ dataDir: home.directory(), database: served })).close()
  await imported(served, dataDir)
  await home.serve({ dataDir: home.directory(), database: served })
})

test('a source that was rolled back is refused, wherever its witness is, until its fence is raised', {
  skip,
}, async () => {
  await using home = new ImportHome()
  for (const witness of ['next to the database', 'elsewhere'] as const) {
    const dataDir = home.directory()
    const fenceDir = witness === 'elsewhere' ? home.directory() : dataDir
    const flags = witness === 'elsewhere' ? ['--fence-dir', fenceDir] : []
    const serve = (): Promise<TestServer> => home.serve({ dataDir, fence: true, fenceDir })
    const before = await serve()
    const alice = await before.login('alice')
    await upload(before, alice, { one_time_keys: keys(ids(5)) })
    await before.close()
    const file = join(dataDir, 'latchkey.db')
    const backup = join(home.directory(), 'latchkey.db')
    cpSync(file, backup)
    const lost = await serve()
    assert.equal((await claim(lost, alice, alice))?.name, named('k0000'))
    await lost.close()
    const database = await home.database()
    await imported(database, dataDir, '--dry-run', ...flags)
    for (const name of ['latchkey.db-wal', 'latchkey.db-shm']) rmSync(join(dataDir, name), { force: true })
    cpSync(backup, file)

    refusedWith(
      await importInto(database, dataDir, ...flags),
      /was rolled back: .*fence-.*Start its server once.*fence adopt/,
    )
    // A dry run uses a copy: the witness elsewhere, of a server that continued, does not apply to it.
    if (witness === 'elsewhere') await imported(database, dataDir, '--dry-run', ...flags)
    else refusedWith(await importInto(database, dataDir, '--dry-run'), /was rolled back/)
    assert.equal(await tablesOf(database), 0)
    await (await serve()).close()
    await imported(database, dataDir, ...flags)
    const after = await home.serve({ dataDir: home.directory(), database })
    assert.equal(await claim(after, alice, alice), undefined)
  }
})

test('an import killed in the middle leaves the database empty and the source unchanged, and can be repeated', {
  skip,
}, async () => {
  await using home = new ImportHome()
  const dataDir = home.directory()
  const before = await home.serve({ dataDir })
  const alice = await before.login('alice')
  await upload(before, alice, { one_time_keys: keys(ids(500)) })
  const body = { n: 1 }
  ok(
    await before.call('PUT', `${CLIENT}/user/${alice.userId}/account_data/m.test`, {
      token: alice.token,
      body,
    }),
  )
  await before.close()
  const database = await home.database()
  const environment = { LATCHKEY_DATABASE: database }
  assert.equal((await runLatchkey(['migrate'], { environment })).code, 0)
  const obstacle = new pg.Client({ connectionString: database })
  await obstacle.connect()
  await obstacle.query(`begin; lock table account_data in share mode`)
  await using running = new RunningProcess(process.execPath, [LATCHKEY, 'import', 'sqlite', dataDir], {
    environment,
  })
  // The keys are written, in a transaction that waits for the next table.
  await eventually(async () => {
    const { rows } = await obstacle.query(`select 1 from pg_locks where not granted`)
    return rows.length > 0
  })
  running.child.kill('SIGKILL')
  assert.equal((await running.ended).signal, 'SIGKILL')
  await obstacle.query('rollback')
  await obstacle.end()
  await eventually(async () => {
    const own = `datname = current_database() and application_name = 'latchkey'`
    return (await query(database, `select 1 from pg_stat_activity where ${own}`)).length === 0
  })
  assert.deepEqual(await query(database, `select 1 from users union all select 1 from one_time_keys`), [])
  assert.deepEqual(embeddedQuery(dataDir, `select 1 from meta where key = 'moved_to'`), [])
  await imported(database, dataDir)
  const after = await home.serve({ dataDir: home.directory(), database })
  assert.deepEqual(await claimNames(after, alice, alice, 2), ids(2).map(named))
})

test('a process that ends between the mark and the commit leaves an installation that can be imported again', {
  skip,
}, async () => {
  await using home = new ImportHome()
  const dataDir = home.directory()
  const before = await home.serve({ dataDir })
  await before.login('alice')
  await before.close()
  const database = await home.database()
  await imported(database, dataDir)
  await query(database, `drop schema public cascade; create schema public`)
  refusedWith(await runLatchkey(['serve', '--port', '0', '--data', dataDir]), /was moved/)
  await imported(database, dataDir)
  assert.deepEqual(await query(database, `select count(*)::int as n from users`), [{ n: 1 }])
})

for (const [what, change] of [
  ['a text that changes on its way', `new.json := new.json || ' '`],
  ['a key that takes another place', `new.seq := new.seq + 100`],
  ['a key that becomes available again', `new.state := 0`],
  ['a row that is not taken', `return null`],
] as const) {
  test(`${what} is found before the commit, and the import is rolled back`, { skip }, async () => {
    await using home = new ImportHome()
    const dataDir = home.directory()
    const before = await home.serve({ dataDir })
    const alice = await before.login('alice')
    await upload(before, alice, { one_time_keys: keys(ids(5)) })
    await claim(before, alice, alice)
    await before.close()
    const database = await home.database()
    const environment = { LATCHKEY_DATABASE: database }
    assert.equal((await runLatchkey(['migrate'], { environment })).code, 0)
    await query(
      database,
      `create function spoil() returns trigger language plpgsql as $$ begin ${change}; return new; end $$;
       create trigger spoil before insert on one_time_keys for each row
         when (new.seq = 1) execute function spoil()`,
    )
    refusedWith(await importInto(database, dataDir), /was rolled back.*one_time_keys/)
    assert.deepEqual(await query(database, `select 1 from users`), [])
    await home.serve({ dataDir })
  })
}

test('counts and digests that do not match the keys of the embedded database are found', {
  skip,
}, async () => {
  await using home = new ImportHome()
  for (const [change, finding] of [
    [`update pools set count = count + 1`, /5 available keys, not 6/],
    [`update pools set digest = zeroblob(32)`, /its digest/],
  ] as const) {
    const dataDir = home.directory()
    const before = await home.serve({ dataDir })
    await upload(before, await before.login('alice'), { one_time_keys: keys(ids(5)) })
    await before.close()
    embeddedQuery(dataDir, change)
    refusedWith(await importInto(await home.database(), dataDir), finding)
  }
})

test('an installation marked as moved is refused with a clear error until the mark is removed', async () => {
  await using home = new ImportHome()
  const dataDir = home.directory()
  await (await home.serve({ dataDir })).close()
  const to = 'postgres://latchkey@db.example.org/latchkey'
  embeddedQuery(dataDir, `insert into meta (key, value) values ('moved_to', '${to}'), ('moved_ts', 0)`)
  await assert.rejects(home.serve({ dataDir }), {
    name: 'StoreError',
    message: /was moved to postgres:\/\/latchkey@db\.example\.org\/latchkey \(1970-01-01/,
  })
  assert.equal((await runLatchkey(['import', 'sqlite', dataDir, '--undo'])).code, 0)
  await home.serve({ dataDir })
})

async function eventually(condition: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 20_000
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error('the condition of the test was not met in time')
    await new Promise((resolve) => setImmediate(resolve))
  }
}
