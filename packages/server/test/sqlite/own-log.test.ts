/**
 * A database file and a write-ahead log of different moments (issue 11, A1): every opener refuses them and changes
 * nothing on the disk. What a crash leaves at any moment, and copies of one instant, open.
 */
import assert from 'node:assert/strict'
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { backup, DatabaseSync } from 'node:sqlite'
import { suite, test } from 'node:test'
import { DEFAULT_CONFIG, storeOptions } from '../../src/config/config.ts'
import type { FenceEvent } from '../../src/fence/events.ts'
import type { Session } from '../../src/session.ts'
import type { Store } from '../../src/store.ts'
import { undoMove } from '../../src/store/import-sqlite/index.ts'
import { checkDatabase } from '../../src/store/sqlite/check-database.ts'
import { Checkpoints } from '../../src/store/sqlite/checkpoints.ts'
import { Database } from '../../src/store/sqlite/database.ts'
import { adoptFence, fenceStatus, openSqliteStore, raiseFence } from '../../src/store/sqlite/index.ts'
import { requireOwnLog } from '../../src/store/sqlite/require-own-log.ts'
import { StoreError } from '../../src/store/store-error.ts'
import { login } from '../store-contract/test-device.ts'
import { claim, claims, keys, kindsOf, NOW, upload } from '../support/store-calls.ts'

const DATABASE = 'latchkey.db'
const LOG = 'latchkey.db-wal'
/** Claims in each run of the server. */
const CLAIMS = 5

class Installation {
  readonly #root = mkdtempSync(join(tmpdir(), 'latchkey-log-'))
  readonly data = this.directory()
  readonly fence = { directory: this.directory() }
  #store: Store | undefined
  #session: Session | undefined

  directory(): string {
    return mkdtempSync(join(this.#root, 'd-'))
  }

  async open(): Promise<{ readonly store: Store; readonly events: readonly FenceEvent[] }> {
    const events: FenceEvent[] = []
    const store = await openSqliteStore({
      ...storeOptions({ ...DEFAULT_CONFIG, dataDir: this.data }),
      fence: this.fence,
      onFence: (event) => events.push(event),
      now: () => NOW,
    })
    this.#store = store
    if (this.#session === undefined) {
      this.#session = await login(store, NOW)
      await upload(store, this.#session, keys(0, 60))
    }
    return { store, events }
  }

  /** Ends the server as `kill -9` does: its files stay as they are. */
  async kill(): Promise<void> {
    const left = this.copy(DATABASE, LOG)
    await this.stop()
    rmSync(join(this.data, LOG), { force: true })
    this.put(left)
  }

  async stop(): Promise<void> {
    await this.#store?.close()
    this.#store = undefined
  }

  copy(...names: readonly string[]): string {
    const directory = this.directory()
    for (const name of names) copyFileSync(join(this.data, name), join(directory, name))
    return directory
  }

  put(directory: string): void {
    for (const name of readdirSync(directory)) copyFileSync(join(directory, name), join(this.data, name))
  }

  get file(): string {
    return join(this.data, DATABASE)
  }

  /** As the `sqlite3` command does. */
  run(sql: string): void {
    const db = new DatabaseSync(this.file)
    db.exec(sql)
    db.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
    rmSync(this.#root, { recursive: true, force: true })
  }
}

const OPENERS: Readonly<Record<string, (installation: Installation) => unknown>> = {
  serve: (it) => it.open(),
  'fence status': (it) => fenceStatus(it.data, it.fence),
  'fence raise': (it) => raiseFence(it.data, { reason: 'a test', now: NOW }),
  'fence adopt': (it) => adoptFence(it.data, it.fence),
  'database check': (it) => checkDatabase(it.data),
  'import sqlite': (it) => undoMove(it.data),
}

async function refused(installation: Installation, message: RegExp): Promise<void> {
  for (const [name, open] of Object.entries(OPENERS)) {
    const before = contentOf(installation.data)
    await assert.rejects(
      async () => open(installation),
      (error) => {
        assert.ok(error instanceof StoreError, `${name}: ${String(error)}`)
        assert.match(error.message, message)
        assert.match(error.message, /latchkey restore/)
        return true
      },
      name,
    )
    assert.deepEqual(contentOf(installation.data), before, `${name} changed the files`)
  }
}

/** Name and content of each file, without the locks. */
function contentOf(directory: string): Record<string, string> {
  const names = readdirSync(directory).filter((name) => !name.includes('lock'))
  return Object.fromEntries(
    names.map((name) => [name, readFileSync(join(directory, name)).toString('latin1')]),
  )
}

const TWO_MOMENTS = /do not belong together/
const NO_LOG = /with a log .* that is missing/

/** Makes the copies of an accident in a first run, and then the accident, after a second run was killed. */
type Accident = {
  readonly name: string
  readonly message: RegExp
  /** While the first run serves. */
  readonly online?: (installation: Installation, copies: string) => unknown
  /** After the first run has ended. */
  readonly stopped?: (installation: Installation, copies: string) => unknown
  /** While the second run serves. */
  readonly later?: (installation: Installation, copies: string) => unknown
  readonly after: (installation: Installation, copies: string) => unknown
}

const putFile = (it: Installation, copies: string): void => copyFileSync(join(copies, DATABASE), it.file)
const vacuumInto = (it: Installation, copies: string): void =>
  it.run(`vacuum into '${join(copies, DATABASE)}'`)

const ACCIDENTS: readonly Accident[] = [
  {
    name: "SQLite's online backup of an earlier run",
    message: TWO_MOMENTS,
    async online(it, copies) {
      const source = new DatabaseSync(it.file)
      await backup(source, join(copies, DATABASE))
      source.close()
    },
    after: putFile,
  },
  { name: 'VACUUM INTO in an earlier run', message: TWO_MOMENTS, online: vacuumInto, after: putFile },
  { name: 'VACUUM INTO in the same run', message: TWO_MOMENTS, later: vacuumInto, after: putFile },
  {
    name: 'the file of a running server, of an earlier run',
    message: TWO_MOMENTS,
    online: (it, copies) => copyFileSync(it.file, join(copies, DATABASE)),
    after: putFile,
  },
  {
    name: 'the file of a stopped server',
    message: TWO_MOMENTS,
    stopped: (it, copies) => copyFileSync(it.file, join(copies, DATABASE)),
    after: putFile,
  },
  {
    name: 'the log of an earlier run',
    message: TWO_MOMENTS,
    online: (it, copies) => copyFileSync(join(it.data, LOG), join(copies, LOG)),
    after: (it, copies) => it.put(copies),
  },
  {
    name: 'a log that was deleted',
    message: NO_LOG,
    after: (it) => rmSync(join(it.data, LOG)),
  },
  {
    name: 'a log that was emptied',
    message: NO_LOG,
    after: (it) => truncateSync(join(it.data, LOG)),
  },
  {
    name: 'the file of a running server, alone',
    message: NO_LOG,
    online: (it, copies) => copyFileSync(it.file, join(copies, DATABASE)),
    after(it, copies) {
      rmSync(join(it.data, LOG))
      putFile(it, copies)
    },
  },
  { name: 'a file that was emptied', message: /is empty/, after: (it) => truncateSync(it.file) },
  {
    name: 'the file of an earlier version',
    message: TWO_MOMENTS,
    stopped(it, copies) {
      copyFileSync(it.file, join(copies, DATABASE))
      unstamp(join(copies, DATABASE))
    },
    after: putFile,
  },
  {
    name: 'the rollback journal of another file',
    message: /-journal is not a file of this database/,
    after: (it) => writeFileSync(`${it.file}-journal`, Buffer.alloc(4096, 0xd9)),
  },
]

/** A database of a version without stamps. */
function unstamp(file: string): void {
  const db = new DatabaseSync(file)
  db.exec('pragma application_id = 0')
  db.close()
}

suite('files of different moments are refused by every opener, which changes nothing', () => {
  for (const { name, message, online, stopped, later, after } of ACCIDENTS) {
    test(name, async () => {
      await using installation = new Installation()
      const copies = installation.directory()
      const first = await installation.open()
      await claims(first.store, CLAIMS)
      await online?.(installation, copies)
      await installation.stop()
      stopped?.(installation, copies)
      const second = await installation.open()
      await claims(second.store, CLAIMS)
      later?.(installation, copies)
      await claims(second.store, CLAIMS)
      await installation.kill()
      await after(installation, copies)
      await refused(installation, message)
    })
  }

  test('a file that was deleted', async () => {
    await using installation = new Installation()
    await installation.open()
    await installation.kill()
    rmSync(installation.file)
    const before = contentOf(installation.data)
    for (const [name, open] of Object.entries(OPENERS)) {
      await assert.rejects(async () => open(installation), StoreError, name)
      assert.deepEqual(contentOf(installation.data), before, `${name} changed the files`)
    }
    await assert.rejects(installation.open(), /has writes of a database, but .* is missing.*latchkey restore/)
  })

  test('the log of another installation', async () => {
    await using other = new Installation()
    await using installation = new Installation()
    for (const it of [other, installation]) {
      await it.open()
      await it.kill()
    }
    installation.put(other.copy(LOG))
    await refused(installation, TWO_MOMENTS)
  })

  test('a log that was copied before a checkpoint, and the file after it', async () => {
    await using installation = new Installation()
    const { store } = await installation.open()
    await claims(store, CLAIMS)
    const log = installation.copy(LOG)
    await claims(store, CLAIMS)
    const db = new DatabaseSync(installation.file)
    checkpointsOf(db).run()
    const file = installation.copy(DATABASE)
    db.close()
    await installation.stop()
    installation.put(log)
    installation.put(file)
    await refused(installation, TWO_MOMENTS)
  })
})

/** As a command does that does not own the database. */
function writeOnce(it: Installation): Database {
  const db = new Database(it.file)
  db.transaction((tx) => tx.run(`update meta set value = value where key = 'epoch'`))
  return db
}

const HARMLESS: readonly { readonly name: string; readonly event: (it: Installation) => unknown }[] = [
  { name: 'a crash', event: (it) => it.kill() },
  { name: 'a stop', event: (it) => it.stop() },
  {
    name: 'a crash, and the file as it was at any time of that run',
    async event(it) {
      const early = it.copy(DATABASE)
      await it.kill()
      it.put(early)
    },
  },
  {
    name: 'a copy of file and log of a running server, if no checkpoint came between',
    async event(it) {
      const copy = it.copy(DATABASE, LOG)
      await it.stop()
      it.put(copy)
    },
  },
  {
    name: 'a crash, and a program that opens the database as sqlite3 does',
    async event(it) {
      await it.kill()
      it.run('select 1 from meta')
      assert.equal(existsSync(join(it.data, LOG)), false)
    },
  },
  {
    name: 'a crash, and commands before the next start',
    async event(it) {
      await it.kill()
      assert.deepEqual(checkDatabase(it.data).findings, [])
      writeOnce(it).close()
      assert.throws(() => undoMove(it.data), /nothing to undo/)
      await fenceStatus(it.data, it.fence)
    },
  },
  {
    name: 'a stop, and commands before the next start',
    async event(it) {
      await it.stop()
      writeOnce(it).close()
      assert.deepEqual(checkDatabase(it.data).findings, [])
    },
  },
  {
    name: 'a crash of the server while a command has the database open',
    async event(it) {
      const command = writeOnce(it)
      const left = it.copy(DATABASE, LOG)
      await it.stop()
      it.put(left)
      command.close()
    },
  },
  {
    name: 'a log whose first transaction was cut off by a crash',
    async event(it) {
      await it.kill()
      const log = join(it.data, LOG)
      // The file is complete: a checkpoint came just before.
      const db = new DatabaseSync(it.file)
      db.exec('pragma wal_autocheckpoint = 0; pragma application_id = 1234')
      db.prepare('pragma wal_checkpoint(restart)').get()
      const kept = it.copy(DATABASE, LOG)
      db.close()
      it.put(kept)
      truncateSync(log, 32 + 24 + 100)
    },
  },
]

suite('what a crash or a copy of one instant leaves opens, and every key is issued once', () => {
  for (const { name, event } of HARMLESS) {
    test(name, async () => {
      await using installation = new Installation()
      const { store } = await installation.open()
      const issued = await claims(store, CLAIMS)
      await event(installation)
      const second = await installation.open()
      assert.deepEqual(kindsOf(second.events), ['stands'])
      issued.push(...(await claims(second.store, CLAIMS)))
      await installation.kill()
      const third = await installation.open()
      issued.push(...(await claims(third.store, CLAIMS)))
      assert.equal(new Set(issued).size, 3 * CLAIMS)
    })
  }

  test('a database of an earlier version, with or without its log', async () => {
    for (const how of ['kill', 'stop'] as const) {
      await using installation = new Installation()
      const { store } = await installation.open()
      const issued = await claims(store, CLAIMS)
      await installation.stop()
      unstamp(installation.file)
      if (how === 'kill') {
        const db = new DatabaseSync(installation.file)
        db.exec(`update meta set value = value where key = 'epoch'`)
        const left = installation.copy(DATABASE, LOG)
        db.close()
        installation.put(left)
      }
      const second = await installation.open()
      issued.push(...(await claims(second.store, CLAIMS)))
      await installation.kill()
      issued.push((await claim((await installation.open()).store)) ?? 'none')
      assert.equal(new Set(issued).size, 2 * CLAIMS + 1)
    }
  })
})

test('behind a symbolic link, the log next to the real file decides', async () => {
  await using installation = new Installation()
  const { store } = await installation.open()
  const early = installation.copy(LOG)
  const issued = await claims(store, CLAIMS)
  await installation.kill()
  const real = installation.copy(DATABASE, LOG)
  const late = installation.copy(LOG)
  for (const name of [DATABASE, LOG]) rmSync(join(installation.data, name))
  symlinkSync(join(real, DATABASE), installation.file)
  const second = await installation.open()
  assert.deepEqual(kindsOf(second.events), ['stands'])
  issued.push(...(await claims(second.store, CLAIMS)))
  assert.equal(new Set(issued).size, 2 * CLAIMS)
  await installation.stop()
  for (const log of [early, late]) {
    copyFileSync(join(log, LOG), join(real, LOG))
    await refused(installation, TWO_MOMENTS)
  }
})

test('a crash at each step of a checkpoint leaves files that belong together, with any part of it written', () => {
  const directory = mkdtempSync(join(tmpdir(), 'latchkey-log-'))
  try {
    const file = join(directory, DATABASE)
    const db = new DatabaseSync(file)
    db.exec('pragma journal_mode = wal; pragma wal_autocheckpoint = 0; create table t (n)')
    const steps: { readonly file: Buffer; readonly log: Buffer }[] = []
    const note = (): void => void steps.push({ file: readFileSync(file), log: readFileSync(`${file}-wal`) })
    const checkpoints = checkpointsOf(db, note)
    for (let round = 0; round < 3; round++) {
      for (let n = 0; n < 50; n++) db.exec(`insert into t values (randomblob(300))`)
      note()
      assert.equal(checkpoints.run(), true)
    }
    assert.equal(checkpoints.finish(), true)
    note()
    db.close()
    assert.ok(steps.length > 20)
    for (const [i, step] of steps.entries()) {
      requireOpens(directory, step.file, step.log)
      const next = steps[i + 1]
      // Within a checkpoint: pages are written in order, and the log is unchanged.
      if (next === undefined || next.file.equals(step.file)) continue
      for (let pages = 1; pages * 4096 < next.file.length; pages += 3) {
        const torn = Buffer.concat([next.file.subarray(0, pages * 4096), step.file.subarray(pages * 4096)])
        requireOpens(directory, torn, step.log)
      }
    }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
})

test('a copy that overtakes a checkpoint is whole, or refused, with each log of that time', () => {
  const directory = mkdtempSync(join(tmpdir(), 'latchkey-log-'))
  try {
    const file = join(directory, DATABASE)
    const db = new DatabaseSync(file)
    db.exec('pragma journal_mode = wal; pragma wal_autocheckpoint = 0; create table t (n, filler)')
    const steps: { readonly file: Buffer; readonly log: Buffer }[] = []
    const note = (): void => void steps.push({ file: readFileSync(file), log: readFileSync(`${file}-wal`) })
    const checkpoints = checkpointsOf(db, note)
    const tables = 4
    for (let n = 0; n < tables; n++) db.exec(`create table t${n} (n, filler)`)
    for (let round = 0; round < 2; round++) {
      for (let n = 0; n < tables; n++) db.exec(`insert into t${n} values (${round}, randomblob(5000))`)
      assert.equal(checkpoints.run(), true)
    }
    db.exec(`insert into t values (3, 'x')`)
    note()
    db.close()
    let torn = 0
    let refusals = 0
    const path = join(directory, 'copy.db')
    for (const [i, before] of steps.entries()) {
      const after = steps[i + 1]
      if (after === undefined || after.file.equals(before.file)) continue
      for (let pages = 1; pages * 4096 < after.file.length; pages++) {
        const copy = Buffer.concat([after.file.subarray(0, pages * 4096), before.file.subarray(pages * 4096)])
        if (copy.equals(after.file)) continue
        torn++
        for (const [later, { log }] of steps.slice(i + 1).entries()) {
          if (steps[i + later]?.log.equals(log)) continue
          writeFileSync(path, copy)
          writeFileSync(`${path}-wal`, log)
          try {
            requireOwnLog(path)
          } catch (error) {
            if (!(error instanceof StoreError)) throw error
            refusals++
            continue
          }
          const read = new DatabaseSync(path)
          assert.deepEqual({ ...read.prepare('pragma integrity_check').get() }, { integrity_check: 'ok' })
          const rounds = Array.from({ length: tables }, (_, n) =>
            Number(read.prepare(`select count(*) as n from t${n}`).get()?.['n']),
          )
          read.close()
          assert.equal(new Set(rounds).size, 1, `a mixture: ${rounds.join(' ')}`)
          for (const name of [path, `${path}-wal`, `${path}-shm`]) rmSync(name, { force: true })
        }
      }
    }
    assert.ok(torn > 10 && refusals > 10, `${torn} torn copies, ${refusals} refusals`)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
})

/** Files that open, and are sound. */
function requireOpens(directory: string, file: Buffer, log: Buffer): void {
  const path = join(directory, 'copy.db')
  writeFileSync(path, file)
  writeFileSync(`${path}-wal`, log)
  requireOwnLog(path)
  const db = new DatabaseSync(path)
  assert.deepEqual({ ...db.prepare('pragma integrity_check').get() }, { integrity_check: 'ok' })
  db.close()
  for (const name of [path, `${path}-wal`, `${path}-shm`]) rmSync(name, { force: true })
}

function checkpointsOf(db: DatabaseSync, note = (): void => {}): Checkpoints {
  const connection = {
    exec(sql: string) {
      db.exec(sql)
      note()
    },
    get(sql: string) {
      const row = db.prepare(sql).get()
      note()
      return row
    },
  }
  const reader = new DatabaseSync(db.location() ?? '', { readOnly: true })
  return new Checkpoints(
    connection,
    { exec: (sql) => reader.exec(sql), get: (sql) => reader.prepare(sql).get() },
    0,
  )
}
