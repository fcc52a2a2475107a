/** A page that works on stores in IndexedDB, for indexed-db.test.ts to call. */
import { indexedDbStore } from '@latchkey/client'
import { STORE_CASES } from '../../../packages/client/test/store-contract/cases.ts'

/** What `transaction` was asked for and what the browser made of it: mode and durability. */
const transactions: { readonly mode: string; readonly durability: string }[] = []

const page = {
  caseNames: STORE_CASES.map(({ name }) => name),

  /** Runs a case of the store contract on a database of its own. */
  async runCase(name: string): Promise<void> {
    const found = STORE_CASES.find((each) => each.name === name)
    if (found === undefined) throw new Error(`there is no case "${name}"`)
    const database = crypto.randomUUID()
    await found.run({ open: () => indexedDbStore(database) })
  },

  async read(database: string): Promise<{ generation: number; records: Record<string, string> }> {
    const store = indexedDbStore(database)
    const { generation, records } = await store.read()
    await store.close()
    return { generation, records: Object.fromEntries(records) }
  },

  /** Adds one, `steps` times, by compare-and-swap alone; how often that was in vain. */
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

  /** Counts for ever; each step that is done is told to the function `tell` of the page. */
  async countForEver(database: string): Promise<void> {
    const store = indexedDbStore(database)
    for (;;) await tell(await countOne(store))
  },

  /** Takes the lock and keeps it as long as the page lives. */
  holdLock(database: string): Promise<void> {
    const { promise: held, resolve } = Promise.withResolvers<void>()
    void indexedDbStore(database).exclusively(() => {
      resolve()
      return new Promise(() => undefined)
    })
    return held
  },

  /** What a lock that nobody else has, or gives up, is needed for. */
  async useLock(database: string, lockTimeoutMs?: number): Promise<string> {
    const store = indexedDbStore(database, lockTimeoutMs === undefined ? {} : { lockTimeoutMs })
    return store.exclusively(() => Promise.resolve('mine'))
  },

  /** Writes and reads, and tells the durability of every transaction that wrote. */
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
  // A record that grows makes a write long enough to be interrupted.
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
  function tell(step: number): Promise<void>
}

watchTransactions()
globalThis.storePage = page
