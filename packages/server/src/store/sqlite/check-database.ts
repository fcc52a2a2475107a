/** The full structure check of a database file, which may be too damaged to open as a store. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { StoreError } from '../store-error.ts'
import { checkStructure, Database } from './database.ts'

/** @throws {StoreError} when the directory has no database. */
export function checkDatabase(directory: string): { file: string; findings: readonly string[] } {
  const file = join(directory, 'latchkey.db')
  if (!existsSync(file)) throw new StoreError(`There is no database in ${directory}: ${file} does not exist.`)
  try {
    const db = new Database(file)
    try {
      return { file, findings: checkStructure(db, 'full') }
    } finally {
      db.close()
    }
  } catch (error) {
    if (isDamage(error)) return { file, findings: [error.message] }
    throw error
  }
}

/** SQLITE_CORRUPT and SQLITE_NOTADB: damage so bad that the check itself could not run. */
export function isDamage(error: unknown): error is Error {
  return error instanceof Error && 'errcode' in error && [11, 26].includes(Number(error.errcode) & 0xff)
}
