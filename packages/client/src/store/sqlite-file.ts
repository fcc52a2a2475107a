/**
 * A store in one SQLite file, for Node (`@latchkey/client/node`). A write is a transaction in WAL mode with
 * `synchronous = FULL`: once it resolves, it survives kill -9 and a power cut.
 *
 * Corrupted bytes are detected, never used (sqlite-file-records.ts). A truncated log (PATH-wal) reads as an older
 * state, like an old copy of the file; the library heals that.
 *
 * Trap: closing any descriptor of a file drops the process's POSIX locks on it, including SQLite's. Only SQLite may
 * open PATH and PATH.lock.
 */
import { chmodSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout } from 'node:timers/promises'
import { asStoreError, isBusy } from './sqlite-file-errors.ts'
import { createFile, openFile, statOf } from './sqlite-file-open.ts'
import { inTransaction, readAll, readHead, writeAll } from './sqlite-file-records.ts'
import { type Changes, type Snapshot, type Store, StoreError } from './store.ts'

/** Options of `fileStore`. */
export type FileStoreOptions = {
  /** How long `exclusively` waits for another process or store object that holds the lock, ms. Default 60 000. */
  readonly lockTimeoutMs?: number
}

const DEFAULT_LOCK_TIMEOUT_MS = 60_000
/** Writes take milliseconds; a writer that takes this long has been suspended. */
const BUSY_TIMEOUT_MS = 10_000
const POLL_MS = 5
/** Length of the log at which it is checkpointed into the file: about 400 kB, 30 writes. */
const CHECKPOINT_PAGES = 100

/**
 * A store in the file at `path`, on a local disk. PATH-wal and PATH-shm next to it are part of it: copy them too, or
 * copy while no process has the store open. PATH.lock is empty. Only the file owner can read these files.
 *
 * The first operation creates the file if it does not exist. Every operation fails with a `StoreError` when an existing
 * file is empty, damaged or of another program, and when the file is removed or replaced while open.
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
  /** Device and inode of the file that was opened first; another file at the same path is refused. */
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
      // The first write goes into the file itself: a file that lost its log must not read as a new store.
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
    const timeout = `another process has been writing for ${BUSY_TIMEOUT_MS / 1000} s; check whether it is suspended.`
    return this.#patiently(this.#path, BUSY_TIMEOUT_MS, timeout, () => work(this.#connect()))
  }

  /** The lock is a transaction on a separate file, so the system releases it when its holder dies. */
  #lock(): Promise<DatabaseSync> {
    const file = `${this.#path}.lock`
    const timeout = `another process or store object has held it for ${this.#lockTimeoutMs} ms. If it hangs, end it.`
    return this.#patiently(file, this.#lockTimeoutMs, timeout, () => {
      const isNew = statOf(file) === undefined
      const db = new DatabaseSync(file, { timeout: 0 })
      try {
        if (isNew) chmodSync(file, 0o600)
        // No rollback journal on disk: this transaction never writes.
        db.exec('pragma journal_mode = memory; begin exclusive')
        return db
      } catch (error) {
        db.close()
        throw error
      }
    })
  }

  /** Retries until the file is free. SQLite's own waiting would block the event loop. */
  async #patiently<T>(file: string, timeoutMs: number, timeout: string, work: () => T): Promise<T> {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      if (this.#closed) throw new StoreError('unreadable', `the store ${this.#path} was closed.`)
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
        `${this.#path} was ${identity === undefined ? 'removed' : 'replaced'} while in use. Restart the program.`,
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
