/**
 * A store in memory that can be copied, restored and damaged, including its generation, as by copying a database file.
 * It keeps its content when the library's objects are closed, as a disk does.
 */
import { type Changes, type Snapshot, StaleStoreError, type Store } from '@latchkey/client'

export class RewindableStore implements Store {
  #records = new Map<string, string>()
  #generation = 0
  #last: Promise<unknown> = Promise.resolve()

  async read(): Promise<Snapshot> {
    return { generation: this.#generation, records: new Map(this.#records) }
  }

  async generation(): Promise<number> {
    return this.#generation
  }

  async write(expected: number, changes: Changes): Promise<number> {
    if (expected !== this.#generation) throw new StaleStoreError(expected, this.#generation)
    for (const [key, text] of changes) {
      if (text === undefined) this.#records.delete(key)
      else this.#records.set(key, text)
    }
    return ++this.#generation
  }

  exclusively<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work)
    this.#last = turn.catch(() => undefined)
    return turn
  }

  /** Keeps the content. */
  async close(): Promise<void> {}

  restore({ generation, records }: Snapshot): void {
    this.#generation = generation
    this.#records = new Map(records)
  }

  wipe(): void {
    this.restore({ generation: 0, records: new Map() })
  }
}
