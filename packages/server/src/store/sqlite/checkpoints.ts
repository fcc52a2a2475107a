/**
 * Checkpoints of the write-ahead log by the process that owns the database. They stamp the main file, so that a later
 * open can show which log belongs to it (require-own-log.ts has the rule):
 *
 *     write a new, even stamp -> checkpoint -> write the same stamp, then stamp + 1
 *
 * The stamp is SQLite's `application_id`, in the header of the file. After the checkpoint the file has the even stamp;
 * a new log begins with it, and has the odd one from then on. So a file with an even stamp needs its log, and what
 * SQLite itself makes of file and log (a backup, a checkpoint by `sqlite3`) has an odd stamp and is complete.
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
  readonly #busyTimeoutMs: number
  /** Whether the log may not have the stamp of the file. */
  #isUnlogged = false
  #pagesAtNext = PAGES

  constructor(connection: Connection, busyTimeoutMs: number) {
    this.#connection = connection
    this.#busyTimeoutMs = busyTimeoutMs
  }

  /**
   * Writes the log into the file, and begins a new one. Returns false when another connection still reads the old log,
   * which then goes on. No transaction may be open.
   */
  run(mode: 'restart' | 'truncate' = 'restart'): boolean {
    stamp(this.#connection, 2 * randomInt(1, LARGEST_STAMP / 2))
    this.#isUnlogged = true
    try {
      return this.#checkpoint(mode)
    } finally {
      this.beginLog()
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

  /** Does not wait for readers: each request would wait for them too. */
  #checkpoint(mode: 'restart' | 'truncate'): boolean {
    const connection = this.#connection
    connection.exec('pragma busy_timeout = 0')
    try {
      return connection.get(`pragma wal_checkpoint(${mode})`)?.['busy'] === 0
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
