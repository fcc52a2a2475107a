/**
 * The storage port: one small set of text records per device, changed in durable steps.
 *
 * Every decision is made on one snapshot, and a write succeeds only if nothing was written since, by this or another
 * process or tab: compare-and-swap on the generation. The loser reads again and decides again; nothing is overwritten
 * (matrix-rust-sdk#3110, #6326: locks that guard a cache were not enough).
 */

/** The stored content. Generation 0 without records: nothing was ever written. */
export type Snapshot = {
  /** Incremented by every write. */
  readonly generation: number
  /** Key -> text, both opaque to the store. */
  readonly records: ReadonlyMap<string, string>
}

/** The changes of one write: texts to put, and `undefined` for records to delete. */
export type Changes = ReadonlyMap<string, string | undefined>

/**
 * The port that `memoryStore`, `indexedDbStore` and `fileStore` implement; implement it for other platforms. One store
 * holds one device. Any number of processes or tabs may have it open.
 */
export interface Store {
  /** The whole content. @throws {StoreError} when it cannot be read or is damaged; never an empty snapshot instead */
  read(): Promise<Snapshot>
  /** The generation alone: a cheap check for writes by others. @throws {StoreError} */
  generation(): Promise<number>
  /**
   * Makes all changes, or none. They are on stable storage when the promise resolves.
   *
   * @param expected the generation that the changes were decided on
   * @returns the new generation, `expected` + 1
   * @throws {StaleStoreError} when the stored generation is a different one; nothing was changed
   * @throws {StoreError} when the store cannot be written; nothing was changed
   */
  write(expected: number, changes: Changes): Promise<number>
  /**
   * Runs `work` while no other holder of this store, in this process or another, runs theirs. The lock is released when
   * its holder ends, even by a crash. Not re-entrant.
   *
   * @throws {StoreError} when the lock cannot be acquired
   */
  exclusively<T>(work: () => Promise<T>): Promise<T>
  close(): Promise<void>
}

/** The store cannot be used. The message names the store, the problem and the remedy. */
export class StoreError extends Error {
  override readonly name: string = 'StoreError'
  /**
   * `unreadable`: no access, no space, or locked; possibly temporary. `corrupted`: damaged content. `foreign`: it
   * belongs to another device, or has a newer format.
   */
  readonly reason: 'unreadable' | 'corrupted' | 'foreign'

  constructor(reason: StoreError['reason'], message: string, options?: ErrorOptions) {
    super(message, options)
    this.reason = reason
  }
}

/** The store was written since the snapshot that a write was decided on. */
export class StaleStoreError extends Error {
  override readonly name = 'StaleStoreError'

  constructor(expected: number, found: number) {
    super(`the store is at generation ${found}, the write was decided on generation ${expected}`)
  }
}
