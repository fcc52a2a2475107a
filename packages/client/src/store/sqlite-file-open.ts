/** Creates and opens the file of a SQLite store. The file appears whole, by link(2): if it exists, it has content. */
import { randomUUID } from 'node:crypto'
import { type BigIntStats, closeSync, fsyncSync, linkSync, openSync, rmSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { pathToFileURL } from 'node:url'
import { emptyDigest } from '@latchkey/protocol'
import { corrupted } from './sqlite-file-errors.ts'
import { headChecksum } from './sqlite-file-records.ts'
import { StoreError } from './store.ts'

/** "Ltch": distinguishes our files from other databases. */
const APPLICATION_ID = 0x4c746368
const FORMAT = 1

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
    key text primary key,    -- JSON: a key may contain lone surrogates
    text text not null,
    checksum blob not null
  ) strict, without rowid;
`

/** Creates an empty store. It is built under another name, so a crash leaves a whole file at `path` or none. */
export function createFile(path: string): void {
  if (statOf(dirname(path)) === undefined) {
    throw new StoreError('unreadable', `${path}: directory ${dirname(path)} does not exist. Create it.`)
  }
  if (statOf(`${path}-wal`) !== undefined && statOf(path) === undefined) {
    throw new StoreError(
      'corrupted',
      `${path} is missing, but its log ${path}-wal exists. Restore it, or remove the log and log in as a new device.`,
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
      // Another process created the file first; it is equivalent.
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
    }
    // Windows cannot flush a directory and does not need to.
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

/** Opens an existing file and checks that it is intact and of this format. @throws {StoreError} */
export function openFile(path: string, stat: BigIntStats): DatabaseSync {
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

export function statOf(path: string): BigIntStats | undefined {
  return statSync(path, { bigint: true, throwIfNoEntry: false })
}
