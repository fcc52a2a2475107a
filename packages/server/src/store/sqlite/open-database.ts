/** Opens the embedded database: directory and file permissions, structure check, schema, migration marker. */
import { join } from 'node:path'
import { prepareDirectory, preparePrivateFile } from '../data-directory.ts'
import { StoreError } from '../store-error.ts'
import { checkStructure, Database, migrate } from './database.ts'
import { requireNotMoved } from './migration-marker.ts'

/**
 * Opens `latchkey.db` in a directory, checks its structure and brings its schema up to date.
 *
 * @throws {StoreError} when it is damaged, newer than this program, or marked as moved to PostgreSQL
 */
export function openDatabase(directory: string): Database {
  prepareDirectory(directory)
  const file = join(directory, 'latchkey.db')
  preparePrivateFile(file)
  const db = openFile(file)
  try {
    requireSound(db, file)
    db.transaction(() => migrate(db, file))
    requireNotMoved(db, file)
  } catch (error) {
    db.close()
    throw error
  }
  return db
}

function openFile(file: string): Database {
  try {
    return new Database(file)
  } catch (error) {
    throw new StoreError(`${file} cannot be opened as a database: ${String(error)}.`, { cause: error })
  }
}

function requireSound(db: Database, file: string): void {
  const [finding] = checkStructure(db, 'quick')
  if (finding === undefined) return
  throw new StoreError(
    `${file} is damaged: ${finding}. Restore it from a backup; "latchkey database check" lists everything found.`,
  )
}
