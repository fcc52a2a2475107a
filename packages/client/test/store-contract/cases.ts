/**
 * The contract of every `Store`, as data: the same cases run against each store in Node, and against IndexedDB in a
 * real browser. So this file must not depend on Node.
 */
import type { Changes, Snapshot, Store } from '../../src/store/store.ts'
import { EXCLUSIVE_CASES } from './exclusive-cases.ts'
import { equal, rejects } from './expect.ts'
import type { StoreCase } from './store-case.ts'

const PLAIN_CASES: readonly StoreCase[] = [
  {
    name: 'a store that nothing was written to is at generation 0 and has no records',
    async run(place) {
      const store = place.open()
      equal(await store.generation(), 0)
      equal(contentOf(await store.read()), {})
    },
  },
  {
    name: 'a write puts, replaces and deletes what it names, leaves the rest, and is the next generation',
    async run(place) {
      const store = place.open()
      equal(await store.write(0, changes({ a: '1', b: '2', c: '3' })), 1)
      equal(await store.write(1, changes({ a: undefined, b: '4', d: '5', never: undefined })), 2)
      equal(await store.write(2, changes({})), 3)
      const snapshot = await store.read()
      equal(snapshot.generation, 3)
      equal(contentOf(snapshot), { b: '4', c: '3', d: '5' })
    },
  },
  {
    name: 'keys and texts of any characters are read back as they were written',
    async run(place) {
      const content = {
        '': '',
        'key/signed_curve25519:AAAAHg': '{"state":"available"}',
        'nul\0and "quotes" \\': 'nul\0 line\n \u2028 é e\u0301',
        '😀\u{10ffff}': '😀',
        'half a pair \ud83d': 'a text of \\ud83d as JSON has it',
        long: 'x'.repeat(300_000),
      }
      await place.open().write(0, changes(content))
      equal(contentOf(await place.open().read()), content)
    },
  },
  {
    name: 'a snapshot stays as it was when the store changes',
    async run(place) {
      const store = place.open()
      await store.write(0, changes({ a: '1' }))
      const snapshot = await store.read()
      await store.write(1, changes({ a: '2', b: '3' }))
      equal(contentOf(snapshot), { a: '1' })
    },
  },
  {
    name: 'a write that was decided on another generation is refused and changes nothing',
    async run(place) {
      const store = place.open()
      await store.write(0, changes({ a: '1' }))
      for (const wrong of [0, 2, -1]) {
        await rejects(store.write(wrong, changes({ a: 'wrong', b: 'wrong' })), 'StaleStoreError')
      }
      equal(await store.generation(), 1)
      equal(contentOf(await store.read()), { a: '1' })
    },
  },
  {
    name: 'a write that fails in the middle changes nothing, and the store goes on',
    async run(place) {
      const store = place.open()
      await store.write(0, changes({ a: '1' }))
      await rejects(store.write(1, new BreakingOff(Object.entries({ a: 'half', b: 'half' }))), 'BrokenOff')
      equal(contentOf(await store.read()), { a: '1' })
      equal(await store.write(1, changes({ a: '2' })), 2)
      equal(contentOf(await store.read()), { a: '2' })
    },
  },
  {
    name: 'what one handle wrote, another sees at once',
    async run(place) {
      const [one, other] = [place.open(), place.open()]
      await one.write(0, changes({ a: '1' }))
      equal(await other.generation(), 1)
      await other.write(1, changes({ b: '2' }))
      equal(contentOf(await one.read()), { a: '1', b: '2' })
      await rejects(one.write(1, changes({ c: '3' })), 'StaleStoreError')
    },
  },
  {
    name: 'of writes that were decided on one generation, exactly one is made',
    async run(place) {
      const handles = Array.from({ length: 4 }, () => place.open())
      const results = await Promise.allSettled(
        handles.flatMap((handle, i) =>
          [0, 1].map((j) => handle.write(0, changes({ winner: `${i}${j}`, [`by${i}${j}`]: 'x' }))),
        ),
      )
      equal(results.filter(({ status }) => status === 'fulfilled').length, 1)
      const content = contentOf(await place.open().read())
      equal(content, { winner: content['winner'], [`by${content['winner']}`]: 'x' })
    },
  },
  {
    name: 'counting by several handles at once loses no step',
    async run(place) {
      const steps = 15
      await Promise.all(Array.from({ length: 3 }, () => countUp(place.open(), steps)))
      const snapshot = await place.open().read()
      equal(snapshot.generation, 3 * steps)
      equal(contentOf(snapshot), { count: String(3 * steps) })
    },
  },
  {
    name: 'closing a handle leaves other handles, and what was written',
    async run(place) {
      const [one, other] = [place.open(), place.open()]
      await one.write(0, changes({ a: '1' }))
      await one.close()
      await one.close()
      equal(await other.write(1, changes({ b: '2' })), 2)
      await other.close()
      equal(contentOf(await place.open().read()), { a: '1', b: '2' })
    },
  },
]

export const STORE_CASES: readonly StoreCase[] = [...PLAIN_CASES, ...EXCLUSIVE_CASES]

export function changes(content: Readonly<Record<string, string | undefined>>): Changes {
  return new Map(Object.entries(content))
}

export function contentOf(snapshot: Snapshot): Record<string, string> {
  return Object.fromEntries(snapshot.records)
}

/** Adds one to a number in the store, `steps` times, deciding again whenever another writer was faster. */
async function countUp(store: Store, steps: number): Promise<void> {
  for (let done = 0; done < steps; ) {
    const { generation, records } = await store.read()
    try {
      await store.write(generation, changes({ count: String(Number(records.get('count') ?? 0) + 1) }))
      done++
    } catch (error) {
      if (!(error instanceof Error) || error.name !== 'StaleStoreError') throw error
    }
  }
}

/** Changes whose iteration throws before the end. */
class BreakingOff extends Map<string, string> {
  override *[Symbol.iterator](): MapIterator<[string, string]> {
    yield* super[Symbol.iterator]()
    throw Object.assign(new Error('broken off'), { name: 'BrokenOff' })
  }
}
