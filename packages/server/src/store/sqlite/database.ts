/**
 * One SQLite connection and its prepared statements, by their text; schema version and structure check.
 * Durability depends on two settings: WAL with `synchronous = FULL` (an fsync per commit), set explicitly.
 */
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite'
import { preparePrivateFile } from '../data-directory.ts'
import { StoreError } from '../store-error.ts'
import { Checkpoints, repeatStamp } from './checkpoints.ts'
import { addMigrationFunctions, migrations } from './migrations/index.ts'
import { realFile, requireOwnLog } from './require-own-log.ts'

export type Param = SQLInputValue

/** Reads. The caller names the row's type; the SQL next to it is the evidence. */
export interface Reader {
  /** The first row, or undefined. */
  one<Row>(sql: string, ...params: Param[]): Row | undefined
  all<Row>(sql: string, ...params: Param[]): Row[]
}

declare const token: unique symbol

/**
 * The token of a running write transaction, and the only way to write. Everything that must run inside a transaction
 * takes it as a parameter. Only `Database.begin` makes one; it throws when it is used after the end of its transaction.
 */
export interface Transaction extends Reader {
  readonly [token]: true
  /** Runs a statement; returns the number of rows it changed. */
  run(sql: string, ...params: Param[]): number
  /** Inserts one row; returns its rowid. */
  insert(sql: string, ...params: Param[]): number
  /** Runs a script of several statements without parameters. */
  script(sql: string): void
}

/** How long a statement waits for the write transaction of another process, such as `latchkey user add`. */
const BUSY_TIMEOUT_MS = 5_000

export class Database implements Reader {
  readonly file: string
  readonly #connection: Connection
  #guard: (tx: Reader) => void = () => {}
  /** Undefined: another process may own the log, and this one never writes a checkpoint. */
  #checkpoints: Checkpoints | undefined

  /**
   * Creates the file if it does not exist.
   *
   * @throws {StoreError} when the file and its log do not belong together; neither is changed.
   */
  constructor(file: string) {
    requireOwnLog(file)
    preparePrivateFile(file)
    this.file = realFile(file)
    this.#connection = new Connection(file)
    this.#connection.exec(`
      pragma journal_mode = wal;
      pragma synchronous = full;
      pragma foreign_keys = off;
      pragma temp_store = memory;
      pragma cache_size = -65536;
      pragma wal_autocheckpoint = 0;
    `)
  }

  /** Begins a new log, and from now on writes the checkpoints: only the process that owns the database does. */
  ownLog(): void {
    this.#checkpoints = new Checkpoints(this.#connection, this.#connection.keepReader(), BUSY_TIMEOUT_MS)
    this.#checkpoints.run()
  }

  /** After a commit. */
  checkpointIfLong(): void {
    this.#checkpoints?.runIfLong()
  }

  one<Row>(sql: string, ...params: Param[]): Row | undefined {
    return this.#connection.statement(sql).get(...params) as Row | undefined
  }

  all<Row>(sql: string, ...params: Param[]): Row[] {
    return this.#connection.statement(sql).all(...params) as Row[]
  }

  /** Row by row, for results that may be larger than memory. One iteration at a time per statement. */
  each<Row>(sql: string, ...params: Param[]): IterableIterator<Row> {
    return this.#connection.statement(sql).iterate(...params) as IterableIterator<Row>
  }

  /** Begins a write transaction. The caller commits it or rolls it back; `transaction` does both. */
  begin(): OpenTransaction {
    this.#checkpoints?.beginLog()
    const tx = new OpenTransaction(this.#connection, this.#checkpoints === undefined)
    try {
      this.#guard(tx)
      return tx
    } catch (error) {
      tx.rollBack()
      throw error
    }
  }

  /** From now on `guard` runs first in each transaction, and prevents it by throwing. */
  guardTransactions(guard: (tx: Reader) => void): void {
    this.#guard = guard
  }

  /** Runs `run` in a transaction of its own, before and after the commit queue runs. */
  transaction<T>(run: (tx: Transaction) => T): T {
    const tx = this.begin()
    try {
      const value = run(tx)
      tx.commit()
      return value
    } catch (error) {
      tx.rollBack()
      throw error
    }
  }

  /** Leaves one complete file if it owns the log and no other connection reads it; otherwise the log stays as it is. */
  close(): void {
    this.#connection.close({ keepsLog: !this.#finishLog() })
  }

  #finishLog(): boolean {
    if (this.#checkpoints === undefined) return false
    try {
      // Another process may be the owner by now.
      this.transaction(() => {})
      return this.#checkpoints.finish()
    } catch {
      // Or the disk is full, or the file is damaged. The log has everything.
      return false
    }
  }
}

/** A transaction as its owner has it: with its end, and savepoints. */
export type { OpenTransaction }

class OpenTransaction implements Transaction {
  declare readonly [token]: true
  readonly #connection: Connection
  /** Whether another process may have written a checkpoint, so that this transaction may be the log's first. */
  readonly #repeatsStamp: boolean
  #hasEnded = false

  constructor(connection: Connection, repeatsStamp: boolean) {
    this.#connection = connection
    this.#repeatsStamp = repeatsStamp
    connection.exec('begin immediate')
  }

  one<Row>(sql: string, ...params: Param[]): Row | undefined {
    return this.#open()
      .statement(sql)
      .get(...params) as Row | undefined
  }

  all<Row>(sql: string, ...params: Param[]): Row[] {
    return this.#open()
      .statement(sql)
      .all(...params) as Row[]
  }

  run(sql: string, ...params: Param[]): number {
    return Number(
      this.#open()
        .statement(sql)
        .run(...params).changes,
    )
  }

  insert(sql: string, ...params: Param[]): number {
    return Number(
      this.#open()
        .statement(sql)
        .run(...params).lastInsertRowid,
    )
  }

  script(sql: string): void {
    this.#open().exec(sql)
  }

  /** False after SQLite has rolled the transaction back by itself, as it does after some faults of the disk. */
  get isActive(): boolean {
    return !this.#hasEnded && this.#connection.isInTransaction
  }

  savepoint(): void {
    this.#open().exec('savepoint operation')
  }

  release(): void {
    this.#open().exec('release operation')
  }

  rollBackToSavepoint(): void {
    this.#open().exec('rollback to operation; release operation')
  }

  /** Durable when it returns. After a failure the transaction is still open and must be rolled back. */
  commit(): void {
    if (this.#repeatsStamp) repeatStamp(this.#open())
    this.#open().exec('commit')
    this.#hasEnded = true
  }

  /** Ends the transaction without its writes. Does nothing after the end. */
  rollBack(): void {
    if (this.isActive) this.#connection.exec('rollback')
    this.#hasEnded = true
  }

  #open(): Connection {
    if (this.#hasEnded) throw new Error('the transaction of this token has ended')
    return this.#connection
  }
}

class Connection {
  readonly #file: string
  readonly #db: DatabaseSync
  readonly #statements = new Map<string, StatementSync>()
  #reader: DatabaseSync | undefined

  constructor(file: string) {
    this.#file = file
    this.#db = new DatabaseSync(file, { timeout: BUSY_TIMEOUT_MS })
    addMigrationFunctions(this.#db)
  }

  get isInTransaction(): boolean {
    return this.#db.isTransaction
  }

  statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql)
    if (statement === undefined) {
      statement = this.#db.prepare(sql)
      this.#statements.set(sql, statement)
    }
    return statement
  }

  exec(sql: string): void {
    this.#db.exec(sql)
  }

  get(sql: string): Record<string, unknown> | undefined {
    return this.statement(sql).get()
  }

  /** A second connection to the file, as long as this one. It can only read. */
  keepReader(): { exec(sql: string): void; get(sql: string): Record<string, unknown> | undefined } {
    const reader = new DatabaseSync(this.#file, { readOnly: true })
    this.#reader = reader
    return { exec: (sql) => reader.exec(sql), get: (sql) => reader.prepare(sql).get() }
  }

  /**
   * The last connection that closes writes a checkpoint and deletes the log by its name, unless it can only read. The
   * kept reader has the same file, also when another file has its name by now.
   */
  close({ keepsLog }: { readonly keepsLog: boolean }): void {
    const reader = this.#reader ?? (keepsLog ? openReader(this.#file) : undefined)
    if (!keepsLog) reader?.close()
    this.#statements.clear()
    this.#db.close()
    if (keepsLog) reader?.close()
  }
}

/** A connection that has read the database; undefined when it is damaged. */
function openReader(file: string): DatabaseSync | undefined {
  const reader = new DatabaseSync(file, { readOnly: true })
  try {
    reader.prepare('select 1 from sqlite_schema').get()
    return reader
  } catch {
    reader.close()
    return undefined
  }
}

/** Returns what SQLite's own structure check finds. Quick: 0.3 s for a million keys; full: 1.7 s. */
export function checkStructure(db: Reader, depth: 'quick' | 'full'): string[] {
  const pragma = depth === 'quick' ? 'quick_check' : 'integrity_check'
  const rows = db.all<Record<string, string>>(`pragma ${pragma}`)
  return rows.flatMap((row) => Object.values(row)).filter((text) => text !== 'ok')
}

/**
 * Brings a database to the schema of this program.
 *
 * @throws {StoreError} when the database has a newer schema.
 */
export function migrate(tx: Transaction, file: string): void {
  const version = tx.one<{ user_version: number }>('pragma user_version')?.user_version ?? 0
  if (version > migrations.length) {
    throw new StoreError(
      `${file} has schema ${version}, this Latchkey knows up to ${migrations.length}. Use the newer Latchkey that wrote it.`,
    )
  }
  for (const sql of migrations.slice(version)) tx.script(sql)
  tx.script(`pragma user_version = ${migrations.length}`)
}
