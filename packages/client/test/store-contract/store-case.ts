/** The form of a contract case. */
import type { Store } from '../../src/store/store.ts'

/** A new empty store: `open` returns a further handle on it, like another process or tab. */
export type Place = { readonly open: () => Store }

export type StoreCase = { readonly name: string; readonly run: (place: Place) => Promise<void> }
