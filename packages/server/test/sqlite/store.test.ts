/** Guarantees of the embedded store beyond the contract: durability, tokens, disk faults, retention, one owner. */
import type { UploadResult } from '../../src/pool/commands.ts'
import { keyPools } from '@latchkey/testing/key-pools.ts'
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync, StatementSync } from 'node:sqlite'
import { afterEach, beforeEach, suite, test } from 'node:test'
import { DEFAULT_CONFIG, storeOptions } from '../../src/config/config.ts'
import { MatrixError } from '../../src/matrix-error.ts'
import { DEFAULT_POOL_POLICY } from '../../src/pool/policy.ts'
import type { UploadedKey } from '../../src/pool/key.ts'
import type { Session } from '../../src/session.ts'
import type { Store } from '../../src/store.ts'
import { CommitQueue } from '../../src/store/sqlite/commit-queue.ts'
import { type Core, createCore } from '../../src/store/sqlite/core.ts'
import { StoreError } from '../../src/store/store-error.ts'
import type { Database, Reader, Transaction } from '../../src/store/sqlite/database.ts'
import { openDatabase } from '../../src/store/sqlite/open-database.ts'
import { openSqliteStore, storeOver } from '../../src/store/sqlite/index.ts'
import { TRANSACTIONS_PER_DEVICE } from '../../src/messages/transaction-memory.ts'
import { sweepOnce } from '../../src/store/sqlite/sweep.ts'
import { claimer, DEVICE, login, makeKey, poolStatus, USER } from '../store-contract/test-device.ts'
import { NOW, senders, sendMany } from '../support/store-calls.ts'
import { assertInboxFollowsModel, INBOX_BOUNDS } from '../support/inbox-model.ts'

let directory = ''
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'latchkey-sqlite-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const OPTIONS = { ...storeOptions({ ...DEFAULT_CONFIG }), now: Date.now, onFence: () => {} }

function openCore(): { readonly db: Database; readonly core: Core; readonly store: Store } {
  const db = openDatabase(directory)
  const core = createCore(db, OPTIONS)
  return { db, core, store: storeOver(core, db) }
}

function keys(from: number, count: number): UploadedKey[] {
  return Array.from({ length: count }, (_, i) => makeKey('signed_curve25519', `K${from + i}`, from + i))
}

function claimOne(store: Store, now = 5): ReturnType<Store['pools']['claim']> {
  const [key] = keys(0, 1)
  if (key === undefined) throw new Error('no key')
  const target = { userId: USER, deviceId: DEVICE, algorithm: key.algorithm }
  return store.pools.claim({ claimer: claimer('bob'), targets: [target], now })
}

function upload(store: Store, session: Session, oneTimeKeys: UploadedKey[]): Promise<UploadResult> {
  return keyPools(store).upload({ session, oneTimeKeys, fallbackKeys: [], now: 3 })
}

test('every commit is an fsync: WAL with synchronous = FULL', () => {
  const db = openDatabase(directory)
  assert.deepEqual({ ...db.one<object>('pragma synchronous') }, { synchronous: 2 })
  assert.deepEqual({ ...db.one<object>('pragma journal_mode') }, { journal_mode: 'wal' })
  db.close()
})

suite('the token of a transaction', () => {
  test('throws when it is used after a commit or a rollback, and is new for each transaction', async () => {
    const { db, core } = openCore()
    const tokens: Transaction[] = []
    db.transaction((tx) => tokens.push(tx))
    assert.throws(() =>
      db.transaction((tx) => {
        tokens.push(tx)
        throw new Error('rolled back')
      }),
    )
    await core.queue.guarded((tx) => void tokens.push(tx))
    await assert.rejects(
      core.queue.plain((tx) => {
        tokens.push(tx)
        throw new TypeError('a bug')
      }),
    )
    assert.equal(new Set(tokens).size, 4)
    const ended = /the transaction of this token has ended/
    for (const tx of tokens) {
      assert.throws(() => tx.run(`insert into claimers (name) values ('late')`), ended)
      assert.throws(() => tx.insert(`insert into claimers (name) values ('late')`), ended)
      assert.throws(() => tx.script(`insert into claimers (name) values ('late')`), ended)
      assert.throws(() => tx.one(`select 1`), ended)
      assert.throws(() => tx.all(`select 1`), ended)
    }
    assert.deepEqual(db.all(`select name from claimers`), [])
    db.close()
  })
})

/** Checked by the compiler only: each line must be an error. */
export function requireTokens(core: Core, db: Database, reader: Reader): void {
  // @ts-expect-error A database writes only through a transaction.
  db.run(`delete from claimers`)
  // @ts-expect-error The database of the core only reads.
  core.db.run(`delete from claimers`)
  // @ts-expect-error A reader is not a token.
  core.positions.next(reader)
  // @ts-expect-error A database is not a token.
  core.claimers.numOf(db, 'bob')
  // @ts-expect-error An object with the same methods is not a token.
  const forged: Transaction = { ...reader, run: () => 0, insert: () => 0, script() {} }
  core.keys.settleAll(forged)
}

suite('the commit queue', () => {
  /** Three writes in one commit, the second of which throws `fault`: the others must be there after it. */
  const requireOthersStored = async (
    kinds: readonly ('guarded' | 'plain')[],
    fault: Error,
  ): Promise<void> => {
    const { db, core } = openCore()
    const outcomes = await Promise.allSettled(
      kinds.map((kind, i) =>
        core.queue[kind]((tx) => {
          tx.run(`insert into claimers (name) values (?)`, `claimer ${i + 1}`)
          if (i === 1) throw fault
        }),
      ),
    )
    assert.deepEqual(
      outcomes.map((o) => o.status),
      ['fulfilled', 'rejected', 'fulfilled'],
    )
    assert.deepEqual(
      db.all<{ name: string }>(`select name from claimers order by name`).map((row) => row.name),
      ['claimer 1', 'claimer 3'],
    )
    db.close()
  }

  test('rolls back only the guarded operation that throws', () =>
    requireOthersStored(['guarded', 'guarded', 'plain'], new MatrixError(400, 'M_UNKNOWN', 'no')))

  test('runs the other operations again without a plain operation that throws', () =>
    requireOthersStored(['plain', 'plain', 'guarded'], new TypeError('a bug')))

  test('a full disk is a 503 that stores and issues nothing, and writes succeed when there is room again', async () => {
    const { db, store } = openCore()
    const session = await login(store, 1)
    await upload(store, session, keys(0, 20))
    const first = await claimOne(store)
    const before = await poolStatus(store, session)
    const { page_count: pages } = db.one<{ page_count: number }>('pragma page_count') ?? {
      page_count: 0,
    }
    db.one(`pragma max_page_count = ${pages}`)
    const claims = Array.from({ length: 5 }, () => claimOne(store))
    const uploads = Array.from({ length: 5 }, (_, i) => upload(store, session, keys(1000 + i * 400, 400)))
    const outcomes = await Promise.allSettled<unknown>([...claims, ...uploads])
    for (const outcome of outcomes) {
      assert.ok(outcome.status === 'rejected' && outcome.reason instanceof MatrixError)
      assert.equal(outcome.reason.status, 503)
    }
    assert.deepEqual(await poolStatus(store, session), before)
    db.one('pragma max_page_count = 1000000')
    const rest = await Promise.all(Array.from({ length: 19 }, () => claimOne(store)))
    const issued = [first, ...rest].map(([key]) => key?.keyId)
    assert.equal(new Set(issued).size, 20)
    assert.ok(!issued.includes(undefined))
    db.close()
  })
})

/** Makes every commit and every read of several rows fail, in SQLite's binding. Returns the function that ends that. */
function failCommitsAndReads(): () => void {
  const exec = Reflect.get(DatabaseSync.prototype, 'exec') as (sql: string) => void
  const all: unknown = Reflect.get(StatementSync.prototype, 'all')
  const fail = (): never => {
    throw new Error('the disk fails')
  }
  Object.assign(DatabaseSync.prototype, {
    exec(this: DatabaseSync, sql: string) {
      return sql === 'commit' ? fail() : Reflect.apply(exec, this, [sql])
    },
  })
  Object.assign(StatementSync.prototype, { all: fail })
  return () => {
    Object.assign(DatabaseSync.prototype, { exec })
    Object.assign(StatementSync.prototype, { all })
  }
}

suite('after a rolled-back commit', () => {
  test('a device name that it assigned is not kept in memory', async () => {
    const { db, core, store } = openCore()
    await login(store, 1) // The account exists, so that only the device is new below.
    const [key] = keys(0, 1)
    if (key === undefined) throw new Error('no key')
    const lost = 'LOST' as typeof DEVICE
    const targets = [{ userId: USER, deviceId: lost, algorithm: key.algorithm }]
    // The device is created, named by a claim, and rolled back with its commit.
    const outcomes = await Promise.allSettled<unknown>([
      login(store, 1, USER, lost),
      Promise.resolve().then(() => store.pools.claim({ claimer: claimer('bob'), targets, now: 1 })),
      core.queue.plain(() => {
        throw Object.assign(new Error('the disk is full'), { errcode: 13 })
      }),
    ])
    assert.ok(outcomes.some((outcome) => outcome.status === 'rejected'))
    const other = await login(store, 1, '@bob:test.example' as typeof USER)
    await upload(store, other, [makeKey('signed_curve25519', 'BOBS', 77)])
    assert.deepEqual(await store.pools.claim({ claimer: claimer('bob'), targets, now: 1 }), [undefined])
    db.close()
  })

  test('nothing is answered until memory is rebuilt, and no key is issued twice', async () => {
    const { db, store } = openCore()
    const other = 'OTHERDEV' as typeof DEVICE
    const session = await login(store, 1, USER, other)
    await login(store, 1)
    await upload(store, await login(store, 1), keys(0, 6))
    const algorithm = keys(0, 1)[0]?.algorithm
    assert.ok(algorithm)
    const fallbackKeys = keys(100, 1)
    await keyPools(store).upload({ session, oneTimeKeys: [], fallbackKeys, now: 3 })
    const targets = [{ userId: USER, deviceId: other, algorithm }]
    // The first numbers of the remaining log are free, so that another issue could take them.
    for (let n = 0; n < 3; n++) await store.pools.claim({ claimer: claimer('bob'), targets, now: 4 })
    const issued = [await claimOne(store), await claimOne(store)]
    await store.pools.inspect(session, { limit: 1 })
    const repair = failCommitsAndReads()
    try {
      await assert.rejects(claimOne(store), { status: 503 })
      await assert.rejects(claimOne(store), { status: 503 })
      await assert.rejects(poolStatus(store, session), { status: 503 })
    } finally {
      repair()
    }
    issued.push(await claimOne(store), await claimOne(store))
    assert.deepEqual(
      issued.map(([key]) => key?.keyId as string),
      ['K0', 'K1', 'K2', 'K3'],
    )
    db.close()
  })

  test('a send after the removal of its device delivers nothing and records no transaction ID', async () => {
    const { db, store } = openCore()
    const session = await login(store, 1)
    const other = await login(store, 1, USER, 'OTHER' as typeof DEVICE)
    const command = (from: Session): Parameters<Store['messages']['send']>[0] => ({
      session: from,
      transaction: 'm.test/1',
      messages: [{ userId: USER, deviceId: other.deviceId, event: '{"n":1}' }],
      now: 2,
    })
    const [, sent] = await Promise.allSettled([
      store.devices.remove(session, [DEVICE], 2),
      store.messages.send(command(session)),
    ])
    assert.ok(sent.status === 'rejected' && sent.reason instanceof MatrixError && sent.reason.status === 401)
    const waiting = (): number => db.all(`select 1 from inbox`).length
    assert.equal(waiting(), 0)
    await store.messages.send(command(await login(store, 3)))
    assert.equal(waiting(), 1)
    db.close()
  })
})

test('a pool claimed in key ID order continues in upload order after a crash', async () => {
  const first = await openSqliteStore({
    ...OPTIONS,
    pools: { ...DEFAULT_POOL_POLICY, claimOrder: 'key_id' },
    directory,
  })
  const session = await login(first, 1)
  await upload(first, session, [makeKey('signed_curve25519', 'Z', 1)])
  await upload(first, session, [makeKey('signed_curve25519', 'A', 2)])
  assert.equal((await claimOne(first))[0]?.keyId, 'A')
  const copy = mkdtempSync(join(tmpdir(), 'latchkey-sqlite-'))
  for (const file of ['latchkey.db', 'latchkey.db-wal']) cpSync(join(directory, file), join(copy, file))
  await first.close()
  const second = await openSqliteStore({ ...OPTIONS, directory: copy })
  assert.equal((await claimOne(second))[0]?.keyId, 'Z')
  assert.equal((await claimOne(second))[0], undefined)
  await second.close()
  rmSync(copy, { recursive: true, force: true })
})

test('a commit takes no further operation after its time limit, and the rest follow in order', async () => {
  let commits = 0
  const db = openDatabase(directory)
  const queue = new CommitQueue(db, { beforeCommit() {}, afterCommit: () => commits++, onRollback() {} })
  const order: number[] = []
  const slow = (n: number): Promise<void> =>
    queue.plain(() => {
      order.push(n)
      const end = performance.now() + 30
      while (performance.now() < end);
    })
  await Promise.all([slow(1), slow(2), slow(3)])
  assert.deepEqual(order, [1, 2, 3])
  assert.equal(commits, 3)
  db.close()
})

suite('retention', () => {
  test('the details of an issued key are deleted after it, and its issue is still known', async () => {
    const { db, core, store } = openCore()
    const session = await login(store, 1)
    await upload(store, session, keys(0, 3))
    await claimOne(store, 100)
    const issued = async (): Promise<number | undefined> =>
      (await store.pools.inspect(session, { limit: 10 })).pools[0]?.issued.length
    assert.equal(await issued(), 1)
    assert.equal(await sweepOnce(core, 100, 100, 0), 0)
    assert.equal(await issued(), 1)
    await sweepOnce(core, 101, 101, 0)
    assert.equal(await issued(), 0)
    const again = await upload(store, session, keys(0, 3))
    assert.deepEqual([...again.outcomes.values()], ['already_issued', 'already_stored', 'already_stored'])
    db.close()
  })

  test('a removed device is known until its end and unknown after it', async () => {
    const { db, core, store } = openCore()
    const outcomeOfReturn = async (): Promise<unknown[]> => {
      const session = await login(store, 1)
      const { outcomes } = await upload(store, session, keys(0, 2))
      return [...outcomes.values()]
    }
    assert.deepEqual(await outcomeOfReturn(), ['stored', 'stored'])
    await claimOne(store)
    const remover = await login(store, 1, USER, 'REMOVER' as typeof DEVICE)
    const remove = (now: number): Promise<void> => store.devices.remove(remover, [DEVICE], now)
    await remove(50)
    await sweepOnce(core, 50, 50, 0)
    assert.deepEqual(await outcomeOfReturn(), ['already_issued', 'already_removed'])
    await remove(60)
    await upload(store, remover, keys(2, 1))
    await sweepOnce(core, 61, 61, 0)
    assert.deepEqual(await outcomeOfReturn(), ['stored', 'stored'])
    db.close()
  })

  test('keys that leave lose their text at once; issued keys of a removed device lose it with the sweep', async () => {
    const { db, core, store } = openCore()
    const texts = (): unknown =>
      db.one<{ n: number }>(`select count(json) as n from one_time_keys where pool_num = 1`)?.n
    const session = await login(store, 1)
    await upload(store, session, keys(0, 5))
    const remover = await login(store, 1, USER, 'REMOVER' as typeof DEVICE)
    await upload(store, remover, keys(5, 1))
    await claimOne(store)
    const withdrawal = { all: false, names: ['signed_curve25519:K1' as never] } as const
    await keyPools(store).reset({ session, withdrawal, oneTimeKeys: [], fallbackKeys: [], now: 4 })
    assert.equal(texts(), 4, 'a withdrawn key has none, an issued one has')
    const small = { ...DEFAULT_POOL_POLICY, keysPerPool: 3 }
    const more = { session, oneTimeKeys: keys(6, 1), fallbackKeys: [], now: 4 }
    assert.equal((await keyPools(store, small).upload(more)).evicted.length, 1)
    assert.equal(texts(), 4, 'an evicted key has none')
    await store.devices.remove(remover, [DEVICE], 50)
    assert.equal(texts(), 1, 'a purged key has none')
    await sweepOnce(core, 2, 51, 0)
    assert.equal(texts(), 0)
    const claimers = db.all<{ n: number }>(`select count(claimer_num) as n from one_time_keys`)
    assert.deepEqual(
      claimers.map(({ n }) => n),
      [1],
      'the claimer stays for the retention',
    )
    db.close()
  })

  test('numbers of keys grow after the keys with the highest numbers were deleted', async () => {
    const { db, core, store } = openCore()
    const newest = (): unknown => db.one<{ num: number }>(`select max(num) as num from one_time_keys`)?.num
    const remover = await login(store, 1, USER, 'REMOVER' as typeof DEVICE)
    await upload(store, await login(store, 1), keys(0, 5))
    assert.equal(newest(), 5)
    await store.devices.remove(remover, [DEVICE], 50)
    await sweepOnce(core, 51, 51, 0)
    await upload(store, remover, keys(5, 1))
    assert.equal(newest(), 6)
    await sweepOnce(core, 51, 51, 0)
    assert.equal(newest(), 6)
    assert.equal(db.one<{ n: number }>(`select count(*) as n from one_time_keys`)?.n, 1)
    assert.equal(db.one<{ n: number }>(`select count(*) as n from devices`)?.n, 1)
    db.close()
  })

  test('a removed device with many keys is deleted in steps', async () => {
    const { db, core, store } = openCore()
    const left = (): unknown => db.one<{ n: number }>(`select count(*) as n from one_time_keys`)?.n
    const session = await login(store, 1)
    for (let from = 0; from < 2_500; from += 500) await upload(store, session, keys(from, 500))
    const remover = await login(store, 1, USER, 'REMOVER' as typeof DEVICE)
    await upload(store, remover, keys(0, 1))
    await store.devices.remove(remover, [DEVICE], 50)
    await sweepOnce(core, 51, 51, 0)
    assert.equal(left(), 501)
    await sweepOnce(core, 51, 51, 0)
    assert.equal(left(), 1)
    assert.equal(db.one<{ n: number }>(`select count(*) as n from devices`)?.n, 1)
    db.close()
  })
})

suite('opening', () => {
  const open = (): Promise<Store> => openSqliteStore({ ...OPTIONS, directory })

  test('a directory has one owner at a time', async () => {
    const first = await open()
    await assert.rejects(
      open,
      (error) => error instanceof StoreError && error.message.includes('Another Latchkey process'),
    )
    await first.close()
    await (await open()).close()
  })

  test('the server name is fixed by the first start', async () => {
    const first = await open()
    assert.equal(await first.claimServerName('one.example'), 'one.example')
    await first.close()
    const second = await open()
    assert.equal(await second.claimServerName(undefined), 'one.example')
    await assert.rejects(second.claimServerName('two.example'), StoreError)
    await second.close()
  })

  test('a newer schema, and a file that is not a database, are refused with a clear error', async () => {
    await (await open()).close()
    const db = new DatabaseSync(join(directory, 'latchkey.db'))
    db.exec('pragma user_version = 99')
    db.close()
    await assert.rejects(open, (error) => error instanceof StoreError && error.message.includes('schema 99'))
    writeFileSync(join(directory, 'latchkey.db'), 'not a database, '.repeat(1000))
    await assert.rejects(
      open,
      (error) => error instanceof StoreError && error.message.includes('latchkey.db'),
    )
  })
})

test('an inbox over its bound loses the oldest messages of the sender that has the most there', async () => {
  for (const bound of INBOX_BOUNDS) {
    const copy = mkdtempSync(join(directory, 'inbox-'))
    const store = await openSqliteStore({ ...OPTIONS, ...bound, directory: copy })
    try {
      await assertInboxFollowsModel([store], await login(store, 1), await senders(store), bound, 120)
    } finally {
      await store.close()
    }
  }
})

test('a device with more transactions than it may have forgets the oldest', async () => {
  const { db, store } = openCore()
  const session = await login(store, 1)
  db.transaction((tx) =>
    tx.script(
      `insert into sent_transactions (device_num, transaction_id, ts)
       with n (n) as (select 1 union all select n + 1 from n where n < ${TRANSACTIONS_PER_DEVICE + 500})
       select ${session.deviceRef}, 'old ' || n, ${NOW} - 100000 + n from n`,
    ),
  )
  await sendMany(store, session, 1_000)
  const kept = db.one(`select count(*) as n, min(ts) - ${NOW - 100_000} as oldest from sent_transactions`)
  assert.deepEqual({ ...(kept as object) }, { n: TRANSACTIONS_PER_DEVICE, oldest: 1_501 })
  db.close()
})
