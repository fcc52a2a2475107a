/**
 * The embedded installation that is imported. Its directory is locked during the import, and everything is read in one
 * transaction, which first updates its schema and settles its issue log. The transaction is rolled back unless the
 * installation is marked as moved (sqlite/migration-marker.ts).
 */
import { existsSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { Counted } from '../../fence/judge.ts'
import { type Lock, lockDirectory } from '../lock-file.ts'
import { StoreError } from '../store-error.ts'
import {
  checkStructure,
  Database,
  migrate,
  type OpenTransaction,
  type Transaction,
} from '../sqlite/database.ts'
import { countersOf, formerEpochs } from '../sqlite/fence-rows.ts'
import { KeyStates } from '../sqlite/key-states.ts'
import { takeOwnership } from '../sqlite/owner.ts'
import { markMoved, type Move, moveOf, unmarkMoved } from '../sqlite/migration-marker.ts'

const FILE_NAME = 'latchkey.db'

export class Source {
  readonly file: string
  readonly db: Database
  readonly #tx: OpenTransaction
  readonly #lock: Lock

  /**
   * @param path `latchkey.db`, or its directory
   * @throws {StoreError} when it does not exist, is in use, is damaged or is from a newer version.
   */
  static open(path: string): Source {
    const file = fileOf(path)
    const lock = lockDirectory(dirname(file))
    try {
      const db = openSound(file)
      try {
        const tx = db.begin()
        migrate(tx, file)
        takeOwnership(tx)
        settleLog(tx)
        return new Source(file, db, tx, lock)
      } catch (error) {
        db.close()
        throw error
      }
    } catch (error) {
      lock.close()
      throw error
    }
  }

  private constructor(file: string, db: Database, tx: OpenTransaction, lock: Lock) {
    this.file = file
    this.db = db
    this.#tx = tx
    this.#lock = lock
  }

  /** The migration marker; undefined when it was not moved. */
  get move(): Move | undefined {
    return moveOf(this.db)
  }

  /** A value of its `meta` table. */
  meta(key: string): string | number | undefined {
    return this.db.one<{ value: string | number }>(`select value from meta where key = ?`, key)?.value
  }

  /** The facts for the judgement of a witness, the same as at the start of a server. */
  counted(writerId: string): Counted {
    return {
      epoch: String(this.meta('epoch')),
      rows: countersOf(this.db, writerId),
      former: formerEpochs(this.db),
    }
  }

  /** Marks it as moved, so that no server opens it. Durable when it returns; nothing may be read afterwards. */
  markMoved(move: Move): void {
    markMoved(this.#tx, move)
    this.#tx.commit()
  }

  /** Removes the marker, so that servers open it again. Durable when it returns. */
  unmarkMoved(): void {
    unmarkMoved(this.#tx)
    this.#tx.commit()
  }

  /** Rolls back everything that was not committed, and releases the directory. */
  close(): void {
    this.#tx.rollBack()
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
    `Expected the ${FILE_NAME} of a data directory, not ${file}. A copy must have that name, in a directory of its own.`,
  )
}

function openSound(file: string): Database {
  let db: Database | undefined
  try {
    db = new Database(file)
    const [finding] = checkStructure(db, 'full')
    if (finding !== undefined) throw damaged(file, finding)
    const version = db.one<{ user_version: number }>('pragma user_version')?.user_version ?? 0
    if (version === 0) throw new StoreError(`${file} is not a Latchkey database.`)
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

/** Writes the issues of the log into the rows of keys and pools. */
function settleLog(tx: Transaction): void {
  // The result does not depend on the epoch or on the claim order.
  const keys = new KeyStates(tx, { epoch: '' }, 'upload')
  keys.reload()
  keys.settleAll(tx)
}
