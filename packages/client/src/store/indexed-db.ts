/**
 * A store in an IndexedDB database, for browsers. A write is one `readwrite` transaction with strict durability; it
 * resolves when the transaction is complete, that is, when the browser has flushed it to disk.
 *
 *     database NAME, version 1:  head    { 'head': { generation, records } }   records: expected number of records
 *                                records { key: text }
 *
 * The first operation opens the connection. It is closed when another tab deletes the database, and reopened when the
 * browser closed it. A database that disappears while in use is an error; it is never created again.
 */
import { deferred } from '../es2023.ts'
import { type Changes, type Snapshot, StaleStoreError, type Store, StoreError } from './store.ts'

/** Options of `indexedDbStore`. */
export type IndexedDbStoreOptions = {
  /** How long `exclusively` waits for another tab that holds the lock, ms. Default 60 000. */
  readonly lockTimeoutMs?: number
}

const VERSION = 1
const HEAD = 'head'
const RECORDS = 'records'
const DEFAULT_LOCK_TIMEOUT_MS = 60_000

type Head = { readonly generation: number; readonly records: number }

/**
 * A store in the IndexedDB database `name`; use one per device, for example `latchkey:@alice:example.org:DEVICEID`.
 * Tabs and workers of one origin share it.
 *
 * Browsers may clear an origin's storage when space runs short; `navigator.storage.persist()` asks them not to.
 * `exclusively` uses Web Locks, which browsers offer only in secure contexts (https, localhost); elsewhere it rejects
 * with a `StoreError`.
 *
 * @example
 * const store = indexedDbStore(`latchkey:${userId}:${deviceId}`)
 */
export function indexedDbStore(name: string, options: IndexedDbStoreOptions = {}): Store {
  return new IndexedDbStore(name, options.lockTimeoutMs ?? DEFAULT_LOCK_TIMEOUT_MS)
}

class IndexedDbStore implements Store {
  readonly #name: string
  readonly #lockTimeoutMs: number
  #connection: Promise<IDBDatabase> | undefined
  /** Whether the database was opened before: if it is missing later, it was deleted. */
  #seen = false
  #closed = false

  constructor(name: string, lockTimeoutMs: number) {
    this.#name = name
    this.#lockTimeoutMs = lockTimeoutMs
  }

  read(): Promise<Snapshot> {
    return this.#inTransaction('readonly', async (transaction) => {
      const records = transaction.objectStore(RECORDS)
      const [head, keys, texts] = await Promise.all([
        this.#head(transaction),
        settled(records.getAllKeys()),
        settled<unknown[]>(records.getAll()),
      ])
      if (keys.length !== head.records) {
        throw this.#corrupted(`it has ${keys.length} records instead of ${head.records}`)
      }
      const found = new Map<string, string>()
      for (const [i, key] of keys.entries()) {
        const text = texts[i]
        if (typeof key !== 'string' || typeof text !== 'string') {
          throw this.#corrupted(`the record ${JSON.stringify(key)} is not a text`)
        }
        found.set(key, text)
      }
      return { generation: head.generation, records: found }
    })
  }

  generation(): Promise<number> {
    return this.#inTransaction('readonly', async (transaction) => (await this.#head(transaction)).generation)
  }

  write(expected: number, changes: Changes): Promise<number> {
    return this.#inTransaction('readwrite', async (transaction) => {
      const { generation } = await this.#head(transaction)
      if (generation !== expected) throw new StaleStoreError(expected, generation)
      const records = transaction.objectStore(RECORDS)
      for (const [key, text] of changes) {
        if (text === undefined) records.delete(key)
        else records.put(text, key)
      }
      const next: Head = { generation: generation + 1, records: await settled(records.count()) }
      transaction.objectStore(HEAD).put(next, HEAD)
      return next.generation
    })
  }

  async exclusively<T>(work: () => Promise<T>): Promise<T> {
    // Missing outside secure contexts, despite the type.
    const locks = globalThis.navigator?.locks as LockManager | undefined
    if (locks === undefined) {
      throw this.#unreadable('Web Locks are not available. Serve the page over https.')
    }
    let isMine = false
    const signal = AbortSignal.timeout(this.#lockTimeoutMs)
    try {
      return await locks.request(`dev.latchkey.store:${this.#name}`, { signal }, () => {
        isMine = true
        return work()
      })
    } catch (error) {
      if (isMine || !signal.aborted) throw error
      throw this.#unreadable(
        `another tab has held its lock for ${this.#lockTimeoutMs} ms. Close other tabs.`,
        error,
      )
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#disconnect()
  }

  /** Runs `work`, which must await only requests of the transaction, and resolves when the transaction is complete. */
  async #inTransaction<T>(
    mode: IDBTransactionMode,
    work: (transaction: IDBTransaction) => Promise<T>,
  ): Promise<T> {
    const transaction = await this.#begin(mode)
    const completed = completion(transaction)
    try {
      const result = await work(transaction)
      await completed
      return result
    } catch (error) {
      // The abort's own error says less than its cause.
      completed.catch(() => undefined)
      abort(transaction)
      if (!isDomException(error)) throw error
      // Some browsers lose a connection silently; the next operation opens another.
      await this.#disconnect()
      throw this.#failed(transaction.error ?? error)
    }
  }

  async #begin(mode: IDBTransactionMode): Promise<IDBTransaction> {
    for (let attempt = 1; ; attempt++) {
      if (this.#closed) throw this.#unreadable('it was closed.')
      let opening: Promise<IDBDatabase> | undefined
      try {
        opening = this.#connection ??= this.#open()
        const db = await opening
        return db.transaction([HEAD, RECORDS], mode, { durability: 'strict' })
      } catch (error) {
        if (this.#connection === opening) this.#connection = undefined
        // The browser closed the connection: retry once with a new one.
        if (isDomException(error) && error.name === 'InvalidStateError' && attempt === 1) continue
        throw isDomException(error) ? this.#failed(error) : error
      }
    }
  }

  async #disconnect(): Promise<void> {
    const connection = this.#connection
    this.#connection = undefined
    await connection?.then(
      (db) => db.close(),
      () => undefined,
    )
  }

  #open(): Promise<IDBDatabase> {
    const { promise, resolve, reject } = deferred<IDBDatabase>()
    const factory = globalThis.indexedDB as IDBFactory | undefined
    if (factory === undefined) throw this.#unreadable('IndexedDB is not available.')
    const request = factory.open(this.#name, VERSION)
    let refusal: StoreError | undefined
    request.addEventListener('upgradeneeded', (event) => {
      refusal = this.#whyNotCreate(event)
      if (refusal !== undefined) request.transaction?.abort()
      else create(request.result)
    })
    request.addEventListener('blocked', () => {
      refusal = this.#unreadable('another tab has an older version of it open. Close other tabs.')
      reject(refusal)
    })
    request.addEventListener('error', (event) => {
      event.preventDefault()
      reject(refusal ?? this.#whyNotOpen(request.error))
    })
    request.addEventListener('success', () => {
      const db = request.result
      const isOurs = db.objectStoreNames.contains(HEAD) && db.objectStoreNames.contains(RECORDS)
      if (refusal !== undefined || !isOurs) {
        db.close()
        reject(refusal ?? this.#foreign('it belongs to another program. Choose another name.'))
        return
      }
      this.#seen = true
      const forget = (): void => {
        db.close()
        if (this.#connection === promise) this.#connection = undefined
      }
      db.addEventListener('versionchange', forget)
      db.addEventListener('close', forget)
      resolve(db)
    })
    return promise
  }

  #whyNotCreate(event: IDBVersionChangeEvent): StoreError | undefined {
    // Chromium reports that it found a database damaged and replaced it.
    if ('dataLoss' in event && event.dataLoss === 'total')
      return this.#corrupted('the browser has discarded it')
    if (event.oldVersion !== 0) return this.#foreign(`it has the unknown version ${event.oldVersion}.`)
    if (this.#seen) return this.#unreadable('it was deleted while in use. Reload the page.')
    return undefined
  }

  #whyNotOpen(error: DOMException | null): StoreError {
    if (error?.name === 'VersionError') {
      return this.#foreign('it has a newer version, or belongs to another program. Update @latchkey/client.')
    }
    return this.#failed(error ?? new DOMException('it cannot be opened'))
  }

  async #head(transaction: IDBTransaction): Promise<Head> {
    const head: unknown = await settled(transaction.objectStore(HEAD).get(HEAD))
    if (!isHead(head)) throw this.#corrupted('its head is missing')
    return head
  }

  #failed(error: { name: string; message: string }): StoreError {
    return this.#unreadable(`${error.name}: ${error.message}`, error)
  }

  #unreadable(what: string, cause?: unknown): StoreError {
    return new StoreError('unreadable', `the IndexedDB database "${this.#name}" cannot be used: ${what}`, {
      cause,
    })
  }

  #foreign(what: string): StoreError {
    return new StoreError('foreign', `the IndexedDB database "${this.#name}" is foreign: ${what}`)
  }

  #corrupted(what: string): StoreError {
    return new StoreError(
      'corrupted',
      `the IndexedDB database "${this.#name}" is damaged: ${what}. Delete it and log in as a new device.`,
    )
  }
}

function create(db: IDBDatabase): void {
  db.createObjectStore(RECORDS)
  const head: Head = { generation: 0, records: 0 }
  db.createObjectStore(HEAD).put(head, HEAD)
}

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.addEventListener('success', () => resolve(request.result))
    request.addEventListener('error', () => reject(request.error as DOMException))
  })
}

function completion(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.addEventListener('complete', () => resolve())
    transaction.addEventListener('abort', () =>
      reject(transaction.error ?? new DOMException('the transaction was aborted', 'AbortError')),
    )
  })
}

/** Aborts the transaction, unless it has already ended. */
function abort(transaction: IDBTransaction): void {
  try {
    transaction.abort()
  } catch {
    // It had already ended.
  }
}

/** By shape: errors of another realm, or of an implementation in JavaScript, have other classes. */
function isDomException(error: unknown): error is { name: string; message: string } {
  return (
    error instanceof Error &&
    !(error instanceof StoreError) &&
    'code' in error &&
    typeof error.code === 'number'
  )
}

function isHead(value: unknown): value is Head {
  const head = value as Partial<Head> | undefined | null
  return typeof head?.generation === 'number' && typeof head.records === 'number'
}
