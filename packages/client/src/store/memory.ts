/** A store that lives only as long as the process: for tests, and for throw-away devices. */
import { StaleStoreError, type Store } from './store.ts'

/** A store in memory. Callers that share the object share the store, as two tabs share a database. */
export function memoryStore(): Store {
  const records = new Map<string, string>()
  let generation = 0
  let last: Promise<unknown> = Promise.resolve()
  return {
    async read() {
      return { generation, records: new Map(records) }
    },
    async generation() {
      return generation
    },
    async write(expected, changes) {
      if (expected !== generation) throw new StaleStoreError(expected, generation)
      // Copied first, so that changes whose iteration throws change nothing.
      for (const [key, text] of [...changes]) {
        if (text === undefined) records.delete(key)
        else records.set(key, text)
      }
      return ++generation
    },
    exclusively(work) {
      const turn = last.then(work)
      last = turn.catch(() => undefined)
      return turn
    },
    async close() {},
  }
}
