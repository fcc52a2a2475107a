/**
 * The embedded installation that is imported. Its directory is held for all of the time, and everything is read in one
 * transaction, in which its schema is brought up to date and its issue log settled first. Nothing of that stays unless the
 * installation is marked as moved (sqlite/migration-marker.ts), which commits it.
 */
import { existsSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { Counted } from '../../fence/judge.ts'
import { type Lock, lockDirectory } from '../lock-file.ts'
import { StoreError } from '../store-error.ts'
import { checkStructure, Database, migrate } from '../sqlite/database.ts'
import { countersOf, formerEpochs } from '../sqlite/fence-rows.ts'
import { KeyStates } from '../sqlite/key-states.ts'
import { markMoved, type Move, moveOf, unmarkMoved } from '../sqlite/migration-marker.ts'

const FILE_NAME = 'latchkey.db'

export class Source {
  readonly file: string
  readonly db: Database
  readonly #lock: Lock

  /**
   * @param path of `latchkey.db`, or of the directory that has it
   * @throws {StoreError} when there is none, when a process uses it, or when it is damaged or from a newer version.
   */
  static open(path: string): Source {
    const file = fileOf(path)
    const lock = lockDirectory(dirname(file))
    try {
      const db = openSound(file)
      try {
        db.exec('begin immediate')
        migrate(db, file)
        settleLog(db)
        return new Source(file, db, lock)
      } catch (error) {
        db.close()
        throw error
      }
    } catch (error) {
      lock.close()
      throw error
    }
  }

  private constructor(file: string, db: Database, lock: Lock) {
    this.file = file
    this.db = db
    this.#lock = lock
  }

  /** Where it was moved, if it was. */
  get move(): Move | undefined {
    return moveOf(this.db)
  }

  /** A value of its `meta` table. */
  meta(key: string): string | number | undefined {
    return this.db.one<{ value: string | number }>(`select value from meta where key = ?`, key)?.value
  }

  /** What a witness is judged by: as a server would find it when it opens it. */
  counted(writerId: string): Counted {
    return {
      epoch: String(this.meta('epoch')),
      rows: countersOf(this.db, writerId),
      former: formerEpochs(this.db),
    }
  }

  /** Marks it as moved: from here on no server opens it. Durable when it returns; the last that is done with it. */
  markMoved(move: Move): void {
    markMoved(this.db, move)
    this.db.exec('commit')
  }

  /** Takes the mark away: servers open it again. Durable when it returns. */
  unmarkMoved(): void {
    unmarkMoved(this.db)
    this.db.exec('commit')
  }

  /** Lets go of it; undoes what was not committed. */
  close(): void {
    if (this.db.inTransaction) this.db.exec('rollback')
    this.db.close()
    this.#lock.close()
  }
}

function fileOf(path: string): string {
  const isDirectory = statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
  const file = isDirectory ? join(path, FILE_NAME) : path
  if (!existsSync(file))
    throw new StoreError(`There is no database ${file}. Name the ${FILE_NAME} of a data directory.`)
  if (basename(file) === FILE_NAME) return file
  throw new StoreError(
    `Expected the ${FILE_NAME} of a data directory, not ${file}. A copy has to have that name, in a directory of its own.`,
  )
}

function openSound(file: string): Database {
  let db: Database | undefined
  try {
    db = new Database(file)
    const [finding] = checkStructure(db, 'full')
    if (finding !== undefined) throw damaged(file, finding)
    const version = db.one<{ user_version: number }>('pragma user_version')?.user_version ?? 0
    if (version === 0) throw new StoreError(`${file} is no database of Latchkey.`)
    return db
  } catch (error) {
    db?.close()
    throw isDamage(error) ? damaged(file, error.message, error) : error
  }
}

function damaged(file: string, finding: string, cause?: Error): StoreError {
  return new StoreError(
    `${file} is damaged: ${finding}. Nothing was imported; restore it from a backup first.`,
    cause && { cause },
  )
}

/** SQLITE_CORRUPT and SQLITE_NOTADB: damage so bad that the check itself could not run. */
function isDamage(error: unknown): error is Error {
  return error instanceof Error && 'errcode' in error && [11, 26].includes(Number(error.errcode) & 0xff)
}

/** The rows of keys and pools as they are with the issues that only the log has. */
function settleLog(db: Database): void {
  // Neither the epoch nor the order of claims makes a difference to that.
  const keys = new KeyStates(db, { epoch: '' }, 'upload')
  keys.reload()
  keys.settleAll()
}
