/**
 * One SQLite connection and its prepared statements, by their text; schema version and structure check.
 * Durability rests on two lines here: WAL with `synchronous = FULL` (an fsync per commit), set explicitly.
 */
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite'
import { StoreError } from '../store-error.ts'
import { migrations } from './migrations/index.ts'

export type Param = SQLInputValue

/** What reads. The caller names the row's type; the SQL next to it is the evidence. */
export interface Reader {
  /** The first row, or undefined. */
  one<Row>(sql: string, ...params: Param[]): Row | undefined
  all<Row>(sql: string, ...params: Param[]): Row[]
}

/** What writes, as long as its transaction runs. Only the commit queue and `Database.transaction` give it. */
export interface Transaction extends Reader {
  /** Runs a statement; returns the number of rows it changed. */
  run(sql: string, ...params: Param[]): number
  /** Inserts one row; returns its rowid. */
  insert(sql: string, ...params: Param[]): number
}

/** How long another connection's write transaction is waited for, `latchkey user add` beside a server for instance. */
const BUSY_TIMEOUT_MS = 5_000
/** 80 MB of log before a commit pays for a checkpoint: most commits of a burst never meet one. */
const CHECKPOINT_PAGES = 20_000

export class Database {
  readonly #db: DatabaseSync
  readonly #statements = new Map<string, StatementSync>()

  constructor(file: string) {
    this.#db = new DatabaseSync(file, { timeout: BUSY_TIMEOUT_MS })
    this.#db.exec(`
      pragma journal_mode = wal;
      pragma synchronous = full;
      pragma foreign_keys = off;
      pragma temp_store = memory;
      pragma cache_size = -65536;
      pragma wal_autocheckpoint = ${CHECKPOINT_PAGES};
    `)
  }

  /** The first row, or undefined. The caller names the row's type; the SQL beside it is the evidence. */
  one<Row>(sql: string, ...params: Param[]): Row | undefined {
    return this.#statement(sql).get(...params) as Row | undefined
  }

  all<Row>(sql: string, ...params: Param[]): Row[] {
    return this.#statement(sql).all(...params) as Row[]
  }

  /** Row by row, for what may be larger than memory. No two at once of the same statement. */
  each<Row>(sql: string, ...params: Param[]): IterableIterator<Row> {
    return this.#statement(sql).iterate(...params) as IterableIterator<Row>
  }

  /** Runs a statement; returns the number of rows it changed. */
  run(sql: string, ...params: Param[]): number {
    return Number(this.#statement(sql).run(...params).changes)
  }

  /** Inserts one row; returns its rowid. */
  insert(sql: string, ...params: Param[]): number {
    return Number(this.#statement(sql).run(...params).lastInsertRowid)
  }

  exec(sql: string): void {
    this.#db.exec(sql)
  }

  get inTransaction(): boolean {
    return this.#db.isTransaction
  }

  /** Runs `run` in a transaction of its own. For what happens before and after the commit queue. */
  transaction<T>(run: () => T): T {
    this.exec('begin immediate')
    try {
      const value = run()
      this.exec('commit')
      return value
    } catch (error) {
      if (this.inTransaction) this.exec('rollback')
      throw error
    }
  }

  close(): void {
    this.#statements.clear()
    this.#db.close()
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql)
    if (statement === undefined) {
      statement = this.#db.prepare(sql)
      this.#statements.set(sql, statement)
    }
    return statement
  }
}

/** SQLite's own structure check: what is wrong, or nothing. Quick: 0.3 s for a million keys; full: 1.7 s. */
export function checkStructure(db: Database, depth: 'quick' | 'full'): string[] {
  const pragma = depth === 'quick' ? 'quick_check' : 'integrity_check'
  const rows = db.all<Record<string, string>>(`pragma ${pragma}`)
  return rows.flatMap((row) => Object.values(row)).filter((text) => text !== 'ok')
}

/**
 * Brings a database to the schema of this program, inside a transaction.
 *
 * @throws {StoreError} when it is newer than that.
 */
export function migrate(db: Database, file: string): void {
  const version = db.one<{ user_version: number }>('pragma user_version')?.user_version ?? 0
  if (version > migrations.length) {
    throw new StoreError(
      `${file} has schema ${version}, this Latchkey knows up to ${migrations.length}. Use the newer Latchkey that wrote it.`,
    )
  }
  for (const sql of migrations.slice(version)) db.exec(sql)
  db.exec(`pragma user_version = ${migrations.length}`)
}
