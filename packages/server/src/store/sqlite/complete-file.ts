/**
 * Turns a copy of an embedded database, with its log if it has one, into one file that opens alone and belongs to no
 * other log: its stamp is new and odd (checkpoints.ts).
 */
import { randomInt } from 'node:crypto'
import { DatabaseSync } from 'node:sqlite'
import { StoreError } from '../store-error.ts'
import { isDamage } from './check-database.ts'

/** @throws {StoreError} when the copy is damaged, or not a database of Latchkey. */
export function makeComplete(file: string): void {
  try {
    const db = new DatabaseSync(file)
    try {
      // Without a log: the file can be copied alone until it is opened again.
      db.exec('pragma journal_mode = delete')
      const [finding] = db.prepare('pragma integrity_check(1)').all()
      const text = String(finding?.['integrity_check'])
      if (text !== 'ok') throw new StoreError(`${file} is damaged: ${text}.`)
      const version = Number(db.prepare('pragma user_version').get()?.['user_version'])
      if (version === 0) throw new StoreError(`${file} is not a Latchkey database.`)
      db.exec(`pragma synchronous = full; pragma application_id = ${2 * randomInt(2 ** 30) + 1}`)
    } finally {
      db.close()
    }
  } catch (error) {
    if (isDamage(error)) throw new StoreError(`${file} is damaged: ${error.message}.`, { cause: error })
    throw error
  }
}
