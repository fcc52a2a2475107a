/**
 * Where a device keeps what must survive it: one small set of text records, changed in durable steps.
 *
 * Everything that the library decides, it decides on one snapshot, and a write succeeds only if nobody else (a second
 * process, another tab) has written since: compare-and-swap on the generation. Who loses reads again and decides anew;
 * nobody overwrites (matrix-rust-sdk#3110, #6326: locks that guard a cache were not enough).
 */

/** Everything that is stored. Generation 0 and no records: nothing was ever written. */
export type Snapshot = {
  /** Grows by one with every write. */
  readonly generation: number
  /** Key -> text, both opaque to the store. */
  readonly records: ReadonlyMap<string, string>
}

/** What one write changes: texts to put, and `undefined` for records to delete. */
export type Changes = ReadonlyMap<string, string | undefined>

/**
 * The port that `memoryStore`, `indexedDbStore` and `fileStore` implement; write your own for another platform.
 * One store holds one device. Any number of processes or tabs may have it open.
 */
export interface Store {
  /** @throws {StoreError} when the store cannot be read, or is not intact. Never an empty snapshot instead. */
  read(): Promise<Snapshot>
  /** The generation alone: cheap, for finding out whether somebody else has written. @throws {StoreError} */
  generation(): Promise<number>
  /**
   * Makes all changes, or none. They are on stable storage when the promise resolves.
   *
   * @param expected the generation that the changes were decided on
   * @returns the new generation, `expected` + 1
   * @throws {StaleStoreError} when the stored generation is another one; nothing was changed
   * @throws {StoreError} when the store cannot be written; nothing was changed
   */
  write(expected: number, changes: Changes): Promise<number>
  /**
   * Runs `work` while nobody else with this store open, in this process or another, runs theirs. The lock ends with its
   * holder, however that ends. Not re-entrant.
   */
  exclusively<T>(work: () => Promise<T>): Promise<T>
  close(): Promise<void>
}

/** The store cannot be used. The message says which store, what is wrong with it, and what to do. */
export class StoreError extends Error {
  override readonly name: string = 'StoreError'
  /** `unreadable`: no access, no space, a lock; it may pass. `corrupted`: its content is damaged. `foreign`: another device's, or of a newer format. */
  readonly reason: 'unreadable' | 'corrupted' | 'foreign'

  constructor(reason: StoreError['reason'], message: string, options?: ErrorOptions) {
    super(message, options)
    this.reason = reason
  }
}

/** Somebody else has written since the snapshot that a write was decided on. */
export class StaleStoreError extends Error {
  override readonly name = 'StaleStoreError'

  constructor(expected: number, found: number) {
    super(`the store is at generation ${found}, the write was decided on generation ${expected}`)
  }
}
