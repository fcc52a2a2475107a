/**
 * A store in one SQLite file, for Node (`@latchkey/client/node`). A write is a transaction in WAL mode with
 * `synchronous = FULL`: when it resolves, it survives kill -9 and a power cut.
 *
 * Bytes that changed on disk are found, not used: each record has a checksum, and the head has the XOR of all of them,
 * so that a lost or an outdated record is noticed as well. A log (PATH-wal) that was cut short reads as an older state,
 * like an old copy of the file; the library heals that. The file appears whole, by link(2): if there is one, it has content.
 *
 * Trap: closing any descriptor of a file drops the process's POSIX locks on it, SQLite's included. Nothing here opens
 * PATH or PATH.lock but SQLite.
 */
import { createHash, randomUUID } from 'node:crypto'
import {
  type BigIntStats,
  chmodSync,
  closeSync,
  fsyncSync,
  linkSync,
  openSync,
  rmSync,
  statSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { emptyDigest, mixIn } from '@latchkey/protocol'
import { type Changes, type Snapshot, StaleStoreError, type Store, StoreError } from './store.ts'

export type FileStoreOptions = {
  /** How long `exclusively` waits for another process or store object that holds the lock, ms. Default 60 000. */
  readonly lockTimeoutMs?: number
}

/** "Ltch": tells our files from other databases. */
const APPLICATION_ID = 0x4c746368
const FORMAT = 1
const DEFAULT_LOCK_TIMEOUT_MS = 60_000
/** Another process's write takes milliseconds; one that takes this long has been stopped in the middle. */
const BUSY_TIMEOUT_MS = 10_000
const POLL_MS = 5
/** The log is moved into the file when it is this long: some 400 kB, 30 writes. */
const CHECKPOINT_PAGES = 100

const SCHEMA = `
  pragma application_id = ${APPLICATION_ID};
  pragma user_version = ${FORMAT};
  create table head (
    id integer primary key check (id = 1),
    generation integer not null,
    digest blob not null,    -- XOR of the checksums of all records
    checksum blob not null
  ) strict;
  create table record (
    key text primary key,    -- as JSON: a key may hold what UTF-8 cannot
    text text not null,
    checksum blob not null
  ) strict, without rowid;
`

/**
 * A store in the file at `path`, on a local disk. Beside it are PATH-wal and PATH-shm, which belong to it (copy them along,
 * or copy while no process has it open), and PATH.lock, which is empty. The owner alone can read them.
 *
 * The file is created if there is none at that path, by the first operation. One that is there but empty, damaged or
 * not ours is an error of every operation, and so is one that is removed or replaced while it is open.
 *
 * @example
 * import { fileStore } from '@latchkey/client/node'
 * const store = fileStore('/var/lib/bot/DEVICEID.latchkey')
 */
export function fileStore(path: string, options: FileStoreOptions = {}): Store {
  return new FileStore(path, options.lockTimeoutMs ?? DEFAULT_LOCK_TIMEOUT_MS)
}

class FileStore implements Store {
  readonly #path: string
  readonly #lockTimeoutMs: number
  #db: DatabaseSync | undefined
  /** Which file it is, since it was first opened: another one at the same path is not taken for it. */
  #identity: string | undefined
  #closed = false
  #lastExclusive: Promise<unknown> = Promise.resolve()

  constructor(path: string, lockTimeoutMs: number) {
    this.#path = path
    this.#lockTimeoutMs = lockTimeoutMs
  }

  read(): Promise<Snapshot> {
    return this.#withDatabase((db) => inTransaction(db, 'begin', () => readAll(db, this.#path)))
  }

  generation(): Promise<number> {
    return this.#withDatabase((db) => readHead(db, this.#path).generation)
  }

  write(expected: number, changes: Changes): Promise<number> {
    return this.#withDatabase((db) => {
      // The first write goes into the file itself: one whose log was lost must not read as if it were new.
      db.exec(`pragma wal_autocheckpoint = ${expected === 0 ? 1 : CHECKPOINT_PAGES}`)
      return inTransaction(db, 'begin immediate', () => writeAll(db, this.#path, expected, changes))
    })
  }

  exclusively<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#lastExclusive.then(async () => {
      const lock = await this.#lock()
      try {
        return await work()
      } finally {
        lock.close()
      }
    })
    this.#lastExclusive = turn.catch(() => undefined)
    return turn
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#disconnect()
  }

  #withDatabase<T>(work: (db: DatabaseSync) => T): Promise<T> {
    const timeout = `another process has been writing for ${BUSY_TIMEOUT_MS / 1000} s; is it stopped?`
    return this.#patiently(this.#path, BUSY_TIMEOUT_MS, timeout, () => work(this.#connect()))
  }

  /** The lock is a transaction on a file of its own, so the system releases it when its holder dies. */
  #lock(): Promise<DatabaseSync> {
    const file = `${this.#path}.lock`
    const timeout = `another process or store object has held it for ${this.#lockTimeoutMs} ms. If it hangs, end it.`
    return this.#patiently(file, this.#lockTimeoutMs, timeout, () => {
      const isNew = statOf(file) === undefined
      const db = new DatabaseSync(file, { timeout: 0 })
      try {
        if (isNew) chmodSync(file, 0o600)
        // A rollback journal would be a second file for nothing: this transaction never writes.
        db.exec('pragma journal_mode = memory; begin exclusive')
        return db
      } catch (error) {
        db.close()
        throw error
      }
    })
  }

  /** Tries until the file is free. SQLite's own waiting would block the event loop. */
  async #patiently<T>(file: string, timeoutMs: number, timeout: string, work: () => T): Promise<T> {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      if (this.#closed) throw new StoreError('unreadable', `the store ${this.#path} has been closed.`)
      try {
        return work()
      } catch (error) {
        if (!isBusy(error)) throw asStoreError(file, error)
        if (performance.now() >= deadline) {
          throw new StoreError('unreadable', `${file} is locked: ${timeout}`, { cause: error })
        }
      }
      await setTimeout(POLL_MS * (1 + Math.random()))
    }
  }

  #connect(): DatabaseSync {
    if (this.#identity === undefined && statOf(this.#path) === undefined) createFile(this.#path)
    const stat = statOf(this.#path)
    const identity = stat && `${stat.dev}:${stat.ino}`
    if (stat === undefined || identity === undefined || (this.#identity ?? identity) !== identity) {
      this.#disconnect()
      throw new StoreError(
        'unreadable',
        `${this.#path} was ${identity === undefined ? 'removed' : 'replaced'} while it was in use. Start the program anew.`,
      )
    }
    this.#db ??= openFile(this.#path, stat)
    this.#identity = identity
    return this.#db
  }

  #disconnect(): void {
    this.#db?.close()
    this.#db = undefined
  }
}

/** A new, empty store. Drafted under another name, so that a crash leaves a whole file at `path` or none. */
function createFile(path: string): void {
  if (statOf(dirname(path)) === undefined) {
    throw new StoreError('unreadable', `${path}: there is no directory ${dirname(path)}. Create it.`)
  }
  if (statOf(`${path}-wal`) !== undefined && statOf(path) === undefined) {
    throw new StoreError(
      'corrupted',
      `${path} is gone, but its log ${path}-wal is there. Put it back, or remove the log as well and log the device in anew.`,
    )
  }
  const draft = `${path}.${randomUUID()}.new`
  try {
    closeSync(openSync(draft, 'wx', 0o600))
    const db = new DatabaseSync(draft)
    try {
      db.exec(SCHEMA)
      const digest = emptyDigest()
      db.prepare('insert into head values (1, 0, ?, ?)').run(digest, headChecksum(0, digest))
      db.exec('pragma journal_mode = wal')
    } finally {
      db.close()
    }
    flush(draft)
    try {
      linkSync(draft, path)
    } catch (error) {
      // Another process was quicker, and its file is as good.
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
    }
    // Windows cannot flush a directory, and need not.
    if (process.platform !== 'win32') flush(dirname(path))
  } finally {
    for (const end of ['', '-journal', '-wal', '-shm']) rmSync(draft + end, { force: true })
  }
}

function flush(path: string): void {
  const descriptor = openSync(path, 'r')
  try {
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}

function openFile(path: string, stat: BigIntStats): DatabaseSync {
  if (stat.size === 0n) throw corrupted(path, 'it is empty')
  const url = pathToFileURL(path)
  url.searchParams.set('mode', 'rw') // never creates
  const db = new DatabaseSync(url, { timeout: 0 })
  try {
    requireOurs(db, path)
    // fullfsync: on macOS fsync alone leaves the data in the drive's cache.
    db.exec('pragma synchronous = full; pragma fullfsync = on; pragma checkpoint_fullfsync = on')
    db.exec('pragma cell_size_check = on')
    const [finding] = db.prepare('pragma quick_check(1)').all().flatMap(Object.values)
    if (finding !== 'ok') throw corrupted(path, String(finding).replaceAll(/\s+/g, ' '))
    return db
  } catch (error) {
    db.close()
    throw error
  }
}

function requireOurs(db: DatabaseSync, path: string): void {
  const { application_id: application } = db.prepare('pragma application_id').get() ?? {}
  const { user_version: format } = db.prepare('pragma user_version').get() ?? {}
  if (application !== APPLICATION_ID) {
    throw new StoreError('foreign', `${path} is a database of another program. Choose another path.`)
  }
  if (format !== FORMAT) {
    throw new StoreError(
      'foreign',
      `${path} has format ${String(format)}, this version knows ${FORMAT}. Update @latchkey/client.`,
    )
  }
}

type Head = { readonly generation: number; readonly digest: Uint8Array }

function readHead(db: DatabaseSync, path: string): Head {
  const statement = db.prepare('select generation, digest, checksum from head')
  // A damaged number may be larger than a JavaScript number can tell.
  statement.setReadBigInts(true)
  const { generation: stored, digest, checksum } = statement.get() ?? {}
  const generation = Number(stored)
  if (
    !Number.isSafeInteger(generation) ||
    !(digest instanceof Uint8Array) ||
    !isSame(checksum, headChecksum(generation, digest))
  ) {
    throw corrupted(path, 'its head is damaged')
  }
  return { generation, digest }
}

function readAll(db: DatabaseSync, path: string): Snapshot {
  const { generation, digest } = readHead(db, path)
  const records = new Map<string, string>()
  const found = emptyDigest()
  for (const { key, text, checksum } of db.prepare('select key, text, checksum from record').iterate()) {
    const expected = recordChecksum(String(key), String(text))
    if (!isSame(checksum, expected)) throw corrupted(path, `the record ${String(key)} is damaged`)
    mixIn(found, expected)
    records.set(JSON.parse(String(key)) as string, String(text))
  }
  if (!isSame(digest, found)) throw corrupted(path, 'records are missing, or out of date')
  return { generation, records }
}

function writeAll(db: DatabaseSync, path: string, expected: number, changes: Changes): number {
  const { generation, digest } = readHead(db, path)
  if (generation !== expected) throw new StaleStoreError(expected, generation)
  const former = db.prepare('select checksum from record where key = ?')
  const remove = db.prepare('delete from record where key = ?')
  const put = db.prepare('insert or replace into record values (?, ?, ?)')
  for (const [key, text] of changes) {
    if (text?.isWellFormed() === false) throw new TypeError(`the text of the record "${key}" is not Unicode`)
    const name = JSON.stringify(key)
    const checksum = former.get(name)?.['checksum']
    if (checksum instanceof Uint8Array) mixIn(digest, checksum)
    if (text === undefined) remove.run(name)
    else {
      const checksum = recordChecksum(name, text)
      mixIn(digest, checksum)
      put.run(name, text, checksum)
    }
  }
  const next = generation + 1
  db.prepare('update head set generation = ?, digest = ?, checksum = ?').run(
    next,
    digest,
    headChecksum(next, digest),
  )
  return next
}

function inTransaction<T>(db: DatabaseSync, begin: string, work: () => T): T {
  db.exec(begin)
  try {
    const result = work()
    db.exec('commit')
    return result
  } catch (error) {
    if (db.isTransaction) db.exec('rollback')
    throw error
  }
}

/** @param name the key as it is stored: JSON, so what is hashed has one reading. */
function recordChecksum(name: string, text: string): Uint8Array {
  return createHash('sha256').update(`${name}${text}`).digest()
}

function headChecksum(generation: number, digest: Uint8Array): Uint8Array {
  return createHash('sha256').update(`${generation} `).update(digest).digest()
}

function isSame(a: unknown, b: Uint8Array): boolean {
  return a instanceof Uint8Array && Buffer.compare(a, b) === 0
}

function statOf(path: string): BigIntStats | undefined {
  return statSync(path, { bigint: true, throwIfNoEntry: false })
}

function corrupted(path: string, what: string, options?: ErrorOptions): StoreError {
  return new StoreError(
    'corrupted',
    `${path} is damaged: ${what}. Restore it from a copy, or remove it and log the device in anew.`,
    options,
  )
}

/** SQLite's primary result codes that speak of a file's content: ERROR (tables are missing), CORRUPT, CONSTRAINT, MISMATCH, FORMAT, NOTADB. */
const DAMAGE = new Set([1, 11, 19, 20, 24, 26])
/** BUSY, LOCKED. */
const BUSY = new Set([5, 6])

function isBusy(error: unknown): boolean {
  return BUSY.has(resultCode(error) ?? -1)
}

/** What SQLite and the file system report, as a StoreError; anything else as it is. */
function asStoreError(file: string, error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof StoreError || error instanceof StaleStoreError)
    return error
  const code = resultCode(error)
  if (code !== undefined && DAMAGE.has(code)) return corrupted(file, error.message, { cause: error })
  if (code === undefined && !('syscall' in error)) return error
  return new StoreError(
    'unreadable',
    `${file} cannot be used: ${error.message}. Check the path, permissions and free space.`,
    { cause: error },
  )
}

function resultCode(error: unknown): number | undefined {
  return error instanceof Error && 'errcode' in error ? Number(error.errcode) & 0xff : undefined
}
