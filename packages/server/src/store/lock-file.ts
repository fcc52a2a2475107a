/** Locks that the kernel releases when their process dies: SQLite's own, on a file without content. */
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { prepareDirectory, preparePrivateFile } from './data-directory.ts'
import { requireLocalFileSystem } from './local-file-system.ts'
import { StoreError } from './store-error.ts'

export type Lock = { close(): void }

/**
 * Locks a data directory for this process.
 *
 * @throws {StoreError} when another process has it, or it is on a network file system.
 */
export function lockDirectory(directory: string): Lock {
  prepareDirectory(directory)
  requireLocalFileSystem(directory)
  const lock = tryLock(join(directory, 'lock.db'))
  if (lock !== undefined) return lock
  throw new StoreError(
    `Another Latchkey process is using ${directory}. Stop it, or give this one another --data directory. ` +
      'The lock is released when that process ends; there is no file to delete.',
  )
}

/** Locks a file, and creates it if it does not exist; undefined when another process has it. */
export function tryLock(file: string): Lock | undefined {
  preparePrivateFile(file)
  const lock = new DatabaseSync(file, { timeout: 0 })
  try {
    lock.exec('pragma journal_mode = delete; pragma locking_mode = exclusive; begin exclusive')
    return lock
  } catch (error) {
    lock.close()
    if (!isBusy(error)) throw error
    return undefined
  }
}

/** SQLITE_BUSY: another connection holds the file. */
function isBusy(error: unknown): boolean {
  return error instanceof Error && 'errcode' in error && (Number(error.errcode) & 0xff) === 5
}
