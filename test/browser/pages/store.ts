/** A page that uses stores in IndexedDB, called by indexed-db.test.ts. */
import { indexedDbStore } from '@latchkey/client'
import { STORE_CASES } from '../../../packages/client/test/store-contract/cases.ts'

/** Mode and resulting durability of each transaction. */
const transactions: { readonly mode: string; readonly durability: string }[] = []

const page = {
  caseNames: STORE_CASES.map(({ name }) => name),

  /** Runs a case of the store contract on a new database. */
  async runCase(name: string): Promise<void> {
    const found = STORE_CASES.find((each) => each.name === name)
    if (found === undefined) throw new Error(`unknown case "${name}"`)
    const database = crypto.randomUUID()
    await found.run({ open: () => indexedDbStore(database) })
  },

  async read(database: string): Promise<{ generation: number; records: Record<string, string> }> {
    const store = indexedDbStore(database)
    const { generation, records } = await store.read()
    await store.close()
    return { generation, records: Object.fromEntries(records) }
  },

  /** Adds one, `steps` times, by compare-and-swap alone. Returns the number of failed attempts. */
  async countBySwap(database: string, steps: number): Promise<number> {
    const store = indexedDbStore(database)
    let stale = 0
    for (let done = 0; done < steps; ) {
      try {
        await countOne(store)
        done++
      } catch (error) {
        if (!(error instanceof Error && error.name === 'StaleStoreError')) throw error
        stale++
      }
    }
    return stale
  },

  /** Adds one, `steps` times, under the lock. */
  async countUnderLock(database: string, steps: number): Promise<void> {
    const store = indexedDbStore(database)
    for (let i = 0; i < steps; i++) await store.exclusively(() => countOne(store))
  },

  /** Counts endlessly and reports each completed step to the page's function `reportStep`. */
  async countEndlessly(database: string): Promise<void> {
    const store = indexedDbStore(database)
    for (;;) await reportStep(await countOne(store))
  },

  /** Takes the lock and holds it until the page is closed. */
  holdLock(database: string): Promise<void> {
    const { promise: held, resolve } = Promise.withResolvers<void>()
    void indexedDbStore(database).exclusively(() => {
      resolve()
      return new Promise(() => undefined)
    })
    return held
  },

  /** Takes the lock, or waits for it, and returns 'mine'. */
  async useLock(database: string, lockTimeoutMs?: number): Promise<string> {
    const store = indexedDbStore(database, lockTimeoutMs === undefined ? {} : { lockTimeoutMs })
    return store.exclusively(() => Promise.resolve('mine'))
  },

  /** Writes and reads. Returns the durability of every write transaction. */
  async durabilities(database: string): Promise<string[]> {
    const store = indexedDbStore(database)
    await countOne(store)
    await countOne(store)
    return transactions.filter(({ mode }) => mode === 'readwrite').map(({ durability }) => durability)
  },
}

async function countOne(store: ReturnType<typeof indexedDbStore>): Promise<number> {
  const { generation, records } = await store.read()
  const next = Number(records.get('count') ?? 0) + 1
  // The record grows so that a write takes long enough to be interrupted.
  return store.write(
    generation,
    new Map([
      ['count', String(next)],
      [`record${next % 20}`, `${next} `.repeat(2000)],
    ]),
  )
}

function watchTransactions(): void {
  const original = Object.getOwnPropertyDescriptor(IDBDatabase.prototype, 'transaction')?.value as (
    ...asked: unknown[]
  ) => IDBTransaction
  IDBDatabase.prototype.transaction = function (this: IDBDatabase, ...asked: unknown[]) {
    const transaction = original.apply(this, asked)
    transactions.push({ mode: transaction.mode, durability: transaction.durability })
    return transaction
  }
}

export type StorePage = typeof page

declare global {
  var storePage: StorePage
  function reportStep(step: number): Promise<void>
}

watchTransactions()
globalThis.storePage = page
