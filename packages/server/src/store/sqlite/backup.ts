/**
 * `latchkey backup`: a copy of the embedded database at one instant, while a server serves it or not. It is copied page
 * by page inside one read transaction, which no writer delays or restarts. The server postpones its checkpoints
 * meanwhile.
 */
import { chmodSync, existsSync, renameSync, rmSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { backup, DatabaseSync } from 'node:sqlite'
import { preparePrivateFile, sync } from '../data-directory.ts'
import { StoreError } from '../store-error.ts'
import { makeComplete } from './complete-file.ts'
import { DATABASE_FILE } from './open-database.ts'
import { requireOwnLog } from './require-own-log.ts'

export type BackupOptions = {
  /** The data directory. */
  readonly directory: string
  readonly target: string
  /** Replaces an existing file. */
  readonly overwrite: boolean
  readonly onProgress: (copied: number, pages: number) => void
}

export type BackupSummary = {
  readonly file: string
  readonly bytes: number
  readonly users: number
  readonly devices: number
  readonly availableKeys: number
  /** Milliseconds since 1970; null when nothing was ever written. */
  readonly lastWriteTs: number | null
}

/** 400 KB: the copy reports its progress in steps of this size. */
const PAGES_PER_STEP = 100

/**
 * The target appears with its complete, checked and durable content, or not at all.
 *
 * @throws {StoreError} when there is no database, it is damaged, or the target exists or cannot be written.
 */
export async function backUpDatabase(options: BackupOptions): Promise<BackupSummary> {
  const { directory, onProgress } = options
  const file = join(directory, DATABASE_FILE)
  if (!existsSync(file)) throw new StoreError(`There is no database in ${directory}: ${file} does not exist.`)
  const target = resolve(options.target)
  requireFree(target, options)
  requireOwnLog(file)
  const partial = `${target}.partial`
  const source = new DatabaseSync(file, { readOnly: true, timeout: 5_000 })
  try {
    source.exec('begin')
    const summary = summaryOf(source)
    rmSync(partial, { force: true })
    preparePrivateFile(partial)
    await backup(source, partial, {
      rate: PAGES_PER_STEP,
      progress: ({ totalPages, remainingPages }) => onProgress(totalPages - remainingPages, totalPages),
    })
    makeComplete(partial)
    requireSameRows(source, partial)
    chmodSync(partial, 0o600)
    sync(partial)
    renameSync(partial, target)
    sync(dirname(target))
    return { file: target, bytes: statSync(target).size, ...summary }
  } finally {
    source.close()
    rmSync(partial, { force: true })
  }
}

function requireFree(target: string, { directory, overwrite }: BackupOptions): void {
  const folder = dirname(target)
  if (!existsSync(folder)) throw new StoreError(`${folder} does not exist: create it first.`)
  if (resolve(directory) === folder && target.startsWith(join(folder, DATABASE_FILE)))
    throw new StoreError(`${target} is a name of the database itself. Choose another file.`)
  if (existsSync(target) && !overwrite)
    throw new StoreError(`${target} exists. Choose another file, or replace it with --overwrite.`)
}

function summaryOf(db: DatabaseSync): Omit<BackupSummary, 'file' | 'bytes'> {
  const row = db
    .prepare(
      `select (select count(*) from users) as users,
         (select count(*) from devices where removed_ts is null) as devices,
         (select coalesce(sum(count), 0) from pools) - (select count(*) from issue_log) as availableKeys,
         (select max(ts) from writers) as lastWriteTs`,
    )
    .get()
  return { ...row } as Omit<BackupSummary, 'file' | 'bytes'>
}

/** Compares the number of rows of each table with the source, which is still at the same instant. */
function requireSameRows(source: DatabaseSync, copy: string): void {
  const db = new DatabaseSync(copy, { readOnly: true })
  try {
    const tables = source.prepare(`select name from sqlite_schema where type = 'table'`).all()
    for (const { name } of tables) {
      const count = `select count(*) as n from "${String(name)}"`
      const [expected, found] = [source, db].map((it) => Number(it.prepare(count).get()?.['n']))
      if (expected === found) continue
      throw new StoreError(
        `The copy of ${String(name)} has ${found} rows, expected ${expected}. It was deleted.`,
      )
    }
  } finally {
    db.close()
  }
}
