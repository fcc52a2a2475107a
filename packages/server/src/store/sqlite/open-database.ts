/** Opens the embedded database: directory and file permissions, structure check, schema, migration marker. */
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { prepareDirectory } from '../data-directory.ts'
import { requireLocalFileSystem } from '../local-file-system.ts'
import { StoreError } from '../store-error.ts'
import { checkStructure, Database, migrate, type Transaction } from './database.ts'
import { createIdentity } from './fence-rows.ts'
import { readOrCreateMeta } from './meta.ts'
import { requireNotMoved } from './migration-marker.ts'

export const DATABASE_FILE = 'latchkey.db'

/**
 * Opens `latchkey.db` in a directory, checks its structure and brings its schema up to date.
 *
 * @throws {StoreError} when it is damaged, newer than this program, or marked as moved to PostgreSQL.
 */
export function openDatabase(directory: string): Database {
  prepareDirectory(directory)
  requireLocalFileSystem(directory)
  return openDatabaseFile(join(directory, DATABASE_FILE))
}

/** As `openDatabase`, for a file with another name. */
export function openDatabaseFile(file: string): Database {
  const db = openFile(file)
  try {
    requireSound(db, file)
    db.transaction((tx) => migrate(tx, file))
    requireNotMoved(db, file)
    db.transaction(createMeta)
  } catch (error) {
    db.close()
    throw error
  }
  return db
}

/** Creates the values that a database has from its first open. */
function createMeta(tx: Transaction): void {
  createIdentity(tx)
  readOrCreateMeta(tx, 'token_secret', () => randomBytes(32).toString('base64url'))
}

function openFile(file: string): Database {
  try {
    return new Database(file)
  } catch (error) {
    if (error instanceof StoreError) throw error
    throw new StoreError(`${file} cannot be opened as a database: ${String(error)}.`, { cause: error })
  }
}

function requireSound(db: Database, file: string): void {
  const [finding] = checkStructure(db, 'quick')
  if (finding === undefined) return
  throw new StoreError(
    `${file} is damaged: ${finding}. Restore a backup with "latchkey restore FILE"; "latchkey database check" lists everything found.`,
  )
}
