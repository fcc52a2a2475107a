/** Runs the contract's cases as tests of this process. */
import { test } from 'node:test'
import { within } from '@latchkey/testing/within.ts'
import type { Store } from '../../src/store/store.ts'
import { STORE_CASES } from './cases.ts'

/** Creates and removes empty stores of one kind, and opens handles on them. */
export type StoreUnderTest = {
  readonly name: string
  readonly make: () => { readonly open: () => Store; readonly discard: () => Promise<void> | void }
}

export function testStore(store: StoreUnderTest): void {
  for (const { name, run } of STORE_CASES) {
    test(`${store.name}: ${name}`, async () => {
      const { open, discard } = store.make()
      const handles: Store[] = []
      const place = {
        open() {
          const handle = open()
          handles.push(handle)
          return handle
        },
      }
      try {
        await within(name, run(place))
      } finally {
        for (const handle of handles) await handle.close()
        await discard()
      }
    })
  }
}
