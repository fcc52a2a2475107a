/**
 * The owner of an embedded database (issue 11, A4). A process that opens the database for itself writes a random token,
 * and each of its transactions begins by checking it, under the lock of writers, so that it holds until the commit.
 * `lock.db` refuses a second process before that, but it can be deleted. The newcomer owns the database: no time and no
 * process ID decides, so a restart never waits. Only the owner writes checkpoints (checkpoints.ts). A process whose
 * files lost their names has lost the database too: it would not see the token of a newcomer (open-files.ts).
 */
import { randomBytes } from 'node:crypto'
import { MatrixError } from '../../matrix-error.ts'
import type { Database, Reader, Transaction } from './database.ts'
import { readMeta, writeMeta } from './meta.ts'
import { OpenFiles } from './open-files.ts'

const OWNER = 'owner'
/** A process that receives no request notices within this time that it is no longer the owner, and ends its syncs. */
const WATCH_EVERY_MS = 1_000

/** 503: another process has the database, or may have it. Nothing of the request was stored, and this process ends. */
export class OwnerLostError extends MatrixError {
  constructor() {
    super(503, 'M_UNKNOWN', 'This server no longer has its database, so it stops.', { retry_after_ms: 1000 })
  }
}

/** Why a process has lost the database. */
export type Loss = 'another owner' | 'other files'

/** Makes this process the owner; returns its token. */
export function takeOwnership(tx: Transaction): string {
  const owner = randomBytes(12).toString('base64url')
  writeMeta(tx, OWNER, owner)
  return owner
}

export class Owner {
  readonly #db: Database
  readonly #token: string
  readonly #files: OpenFiles
  readonly #onLost: (loss: Loss) => void
  #isLost = false

  /**
   * Makes this process the owner of a database, before it reads anything into memory.
   *
   * @param onLost is called once, when this process has lost the database
   */
  static take(db: Database, onLost: (loss: Loss) => void): Owner {
    const owner = new Owner(db, db.transaction(takeOwnership), onLost)
    db.guardTransactions((tx) => owner.#requireAll(tx))
    db.ownLog()
    return owner
  }

  private constructor(db: Database, token: string, onLost: (loss: Loss) => void) {
    this.#db = db
    this.#token = token
    this.#onLost = onLost
    this.#files = new OpenFiles(db.file)
  }

  get isLost(): boolean {
    return this.#isLost
  }

  /** Before an answer from memory. @throws {OwnerLostError} */
  require(reader: Reader = this.#db): void {
    if (this.#isLost || readMeta<string>(reader, OWNER) !== this.#token) this.#lose('another owner')
  }

  /** Inside each transaction. @throws {OwnerLostError} */
  #requireAll(reader: Reader): void {
    this.require(reader)
    if (!this.#files.haveTheirNames()) this.#lose('other files')
  }

  #lose(loss: Loss): never {
    const isNew = !this.#isLost
    this.#isLost = true
    if (isNew) this.#onLost(loss)
    throw new OwnerLostError()
  }

  /** Checks it also while no request does, until the returned function is called. */
  watch(): () => void {
    const timer = setInterval(() => {
      try {
        this.#requireAll(this.#db)
      } catch {
        // Reported by `onLost`. A file that cannot be read fails the requests.
      }
      if (this.#isLost) clearInterval(timer)
    }, WATCH_EVERY_MS)
    timer.unref()
    return () => clearInterval(timer)
  }
}
