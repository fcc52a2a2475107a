/**
 * Checkpoints of the write-ahead log by the process that owns the database. They stamp the main file, so that a later
 * open can show which log belongs to it (require-own-log.ts has the rule):
 *
 *     even stamp A -> checkpoint of all pages -> even stamp B -> checkpoint of the header -> stamp B again, then B + 1
 *
 * The stamp is SQLite's `application_id`, in the header of the file. After the checkpoint the file has stamp B; a new
 * log begins with it, and has the odd one from then on. So a file with an even stamp needs its log, and what SQLite
 * itself makes of file and log (a backup, a checkpoint by `sqlite3`) has an odd stamp and is complete.
 *
 * The header is the first page that a checkpoint writes. A copy that overtakes the first checkpoint has A, and lacks
 * pages that only the old log has; the new log does not know A. Between the two, a reader holds the old log: without
 * one, SQLite begins a new log at the first write after all was copied.
 */
import { randomInt } from 'node:crypto'

/** 80 MB of log: most commits of a burst are never followed by a checkpoint. It takes about 100 ms. */
const PAGES = 20_000
const LARGEST_STAMP = 2 ** 31 - 2

/** The part of a connection that checkpoints use. */
export type Connection = {
  exec(sql: string): void
  get(sql: string): Record<string, unknown> | undefined
}

export class Checkpoints {
  readonly #connection: Connection
  readonly #reader: Connection
  readonly #busyTimeoutMs: number
  /** Whether the log may not have the stamp of the file. */
  #isUnlogged = false
  #pagesAtNext = PAGES

  /** @param reader another connection to the same file */
  constructor(connection: Connection, reader: Connection, busyTimeoutMs: number) {
    this.#connection = connection
    this.#reader = reader
    this.#busyTimeoutMs = busyTimeoutMs
  }

  /**
   * Writes the log into the file, and begins a new one. Returns false when another connection still reads the old log,
   * which then goes on. No transaction may be open.
   */
  run(): boolean {
    this.#stampNew()
    this.#isUnlogged = true
    try {
      if (!this.#copiesAll()) return false
      return this.#checkpoint('restart')
    } finally {
      this.beginLog()
    }
  }

  #stampNew(): void {
    stamp(this.#connection, 2 * randomInt(1, LARGEST_STAMP / 2))
  }

  /** Copies the whole log into the file, and stamps it again. Returns false when another connection prevents it. */
  #copiesAll(): boolean {
    this.#reader.exec('begin')
    try {
      readStamp(this.#reader)
      const copied = this.#pragma('passive')
      if (copied?.['busy'] !== 0 || copied['log'] !== copied['checkpointed']) return false
      this.#stampNew()
      return true
    } finally {
      this.#reader.exec('rollback')
    }
  }

  /** After a commit: a checkpoint if the log is long. One that fails is tried again later: the log has everything. */
  runIfLong(): void {
    if (this.#pages() < this.#pagesAtNext) return
    try {
      this.run()
    } catch {
      // The next transaction begins the log.
    }
    this.#pagesAtNext = this.#pages() + PAGES
  }

  /** The last checkpoint, before the connection is closed. Returns false when the log must stay. */
  finish(): boolean {
    return this.run() && this.#checkpoint('truncate')
  }

  /** Before a transaction: the first one after a checkpoint has to write the stamp into the log. */
  beginLog(): void {
    if (!this.#isUnlogged) return
    const connection = this.#connection
    repeatStamp(connection)
    stamp(connection, readStamp(connection) | 1)
    this.#isUnlogged = false
  }

  #checkpoint(mode: 'restart' | 'truncate'): boolean {
    return this.#pragma(mode)?.['busy'] === 0
  }

  /** Does not wait for readers: each request would wait for them too. */
  #pragma(mode: 'passive' | 'restart' | 'truncate'): Record<string, unknown> | undefined {
    const connection = this.#connection
    connection.exec('pragma busy_timeout = 0')
    try {
      return connection.get(`pragma wal_checkpoint(${mode})`)
    } finally {
      connection.exec(`pragma busy_timeout = ${this.#busyTimeoutMs}`)
    }
  }

  /** The length of the log. Takes about a microsecond. */
  #pages(): number {
    return Number(this.#connection.get('pragma wal_checkpoint(noop)')?.['log'])
  }
}

/**
 * Inside a transaction that may be the first of its log: writes the stamp of the file again. Processes that do not own
 * the database do it in each transaction.
 */
export function repeatStamp(connection: Connection): void {
  stamp(connection, readStamp(connection))
}

function stamp(connection: Connection, value: number): void {
  connection.exec(`pragma application_id = ${value}`)
}

function readStamp(connection: Connection): number {
  return Number(connection.get('pragma application_id')?.['application_id'])
}
