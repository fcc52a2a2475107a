/** StoredState on every kind of store: concurrent updates, repeated decisions, and damaged records. */
import 'fake-indexeddb/auto'
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, suite, test } from 'node:test'
import fc from 'fast-check'
import { indexedDbStore } from '../../src/store/indexed-db.ts'
import { memoryStore } from '../../src/store/memory.ts'
import { fileStore } from '../../src/store/sqlite-file.ts'
import type { Store, StoreError } from '../../src/store/store.ts'
import { type Kind, StoredState, type Transaction } from '../../src/store/stored-state.ts'

type Counter = { readonly value: number }

const COUNTER: Kind<Counter> = {
  name: 'counter',
  check: (value): value is Counter => typeof (value as Partial<Counter> | null)?.value === 'number',
}

const root = mkdtempSync(join(tmpdir(), 'latchkey-state-'))
after(() => rmSync(root, { recursive: true, force: true }))

/** For each store: a way to create handles on one new, empty location. */
const STORES: Readonly<Record<string, () => () => Store>> = {
  memory: () => {
    const store = memoryStore()
    return () => store
  },
  file: () => {
    const path = join(mkdtempSync(join(root, 'place-')), 'store')
    return () => fileStore(path)
  },
  IndexedDB: () => {
    const name = crypto.randomUUID()
    return () => indexedDbStore(name)
  },
}

for (const [name, place] of Object.entries(STORES)) {
  suite(`stored state in ${name}`, () => {
    test('concurrent updates of one store lose nothing, and see each other', async () => {
      const step = fc.record({
        by: fc.nat(2),
        counter: fc.constantFrom('a', 'b', 'c'),
        add: fc.integer({ min: 1, max: 9 }),
      })
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
          const open = place()
          const stores = [open(), open(), open()]
          const states = await Promise.all(stores.map((store) => StoredState.open(store, [COUNTER])))
          const results = await Promise.all(
            steps.map(async ({ by, counter, add }) =>
              states[by]?.update((transaction) => addTo(transaction, counter, add)),
            ),
          )
          for (const counter of ['a', 'b', 'c']) {
            const own = steps.flatMap((made, i) =>
              made.counter === counter ? [{ ...made, result: results[i] }] : [],
            )
            const sum = own.reduce((total, { add }) => total + add, 0)
            for (const state of states)
              assert.equal(await state.read((view) => view.get(COUNTER, counter)?.value ?? 0), sum)
            // Each step saw all previous ones: the sums that the steps returned are one chain.
            const chain = own.map(({ result, add }) => ({ from: (result ?? 0) - add, to: result }))
            chain.sort((one, other) => one.from - other.from)
            let reached = 0
            for (const { from, to } of chain) {
              assert.equal(from, reached)
              reached = to ?? Number.NaN
            }
          }
          await Promise.all(stores.map((store) => store.close()))
        }),
        { numRuns: 15 },
      )
    })

    test('an update that was decided on an old state is decided again', async () => {
      const open = place()
      const [mine, other] = [open(), open()]
      const [state, before] = [
        await StoredState.open(mine, [COUNTER]),
        await StoredState.open(other, [COUNTER]),
      ]
      await before.update((transaction) => addTo(transaction, 'a', 5))
      const seen: (number | undefined)[] = []
      await state.update((transaction) => {
        seen.push(transaction.get(COUNTER, 'a')?.value)
        addTo(transaction, 'a', 1)
      })
      assert.deepEqual(seen, [undefined, 5])
      assert.equal(await before.read((view) => view.get(COUNTER, 'a')?.value), 6)
      await mine.close()
      await other.close()
    })

    test('an update that throws changes nothing, and neither does one that changes nothing', async () => {
      const open = place()
      const store = open()
      const state = await StoredState.open(store, [COUNTER])
      await state.update((transaction) => addTo(transaction, 'a', 1))
      const failing = state.update((transaction) => {
        addTo(transaction, 'a', 1)
        throw new Error('changed my mind')
      })
      await assert.rejects(failing, /changed my mind/)
      assert.equal(await state.update((transaction) => transaction.get(COUNTER, 'a')?.value), 1)
      assert.equal(await store.generation(), 1)
      await store.close()
    })

    test('a record that is not JSON, or has another shape, is damage', async () => {
      for (const text of ['{"value":1', '{"value":"1"}', 'null', '']) {
        const store = place()()
        await store.write(0, new Map([['counter/a', text]]))
        await assert.rejects(StoredState.open(store, [COUNTER]), isStoreError('corrupted'), text)
        await store.close()
      }
    })

    test('a record of an unknown kind means a newer version or another use', async () => {
      const store = place()()
      await store.write(0, new Map([['unheard/a', '{"value":1}']]))
      await assert.rejects(StoredState.open(store, [COUNTER]), isStoreError('foreign'))
      await store.close()
    })

    test('damage found during an update fails it, and nothing is written over the damage', async () => {
      const open = place()
      const [mine, other] = [open(), open()]
      const state = await StoredState.open(mine, [COUNTER])
      await state.update((transaction) => addTo(transaction, 'a', 1))
      await other.write(1, new Map([['counter/a', '?']]))
      for (let i = 0; i < 2; i++) {
        await assert.rejects(
          state.update((transaction) => addTo(transaction, 'a', 1)),
          isStoreError('corrupted'),
        )
      }
      assert.deepEqual([...(await other.read()).records], [['counter/a', '?']])
      await mine.close()
      await other.close()
    })
  })
}

function addTo(transaction: Transaction, id: string, add: number): number {
  const value = (transaction.get(COUNTER, id)?.value ?? 0) + add
  transaction.put(COUNTER, id, { value })
  return value
}

function isStoreError(reason: StoreError['reason']) {
  return (error: StoreError): boolean => {
    assert.equal(error.name, 'StoreError', String(error))
    assert.equal(error.reason, reason)
    return true
  }
}

test('an update that changes nothing gives up too when the store never stops changing', async () => {
  const store = memoryStore()
  let generation = 0
  const restless: Store = { ...store, generation: async () => ++generation }
  const state = await StoredState.open(restless, [COUNTER])
  await assert.rejects(
    state.update(() => undefined),
    { name: 'StoreError', reason: 'unreadable' },
  )
})
