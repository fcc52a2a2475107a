/** Rows of a pool's log, as far as a store loads them for a decision. */
import type { KeyId, KeyMaterial } from '@latchkey/protocol'
import type { KeyState, MaterialHash } from './key.ts'

/** A row of the log. `place` is the store's number of it; within a pool, places grow in upload order. */
export type ListedKey = { readonly place: number; readonly keyId: KeyId; readonly hash: MaterialHash }
/** A logged key with the material of a wanted one. */
export type MetKey = ListedKey & { readonly state: Exclude<KeyState, 'withdrawn'> }
/** With its material, from which its share of the digest is computed. */
export type KnownKey = ListedKey & { readonly material: KeyMaterial }
/** An available key that a request names, with its JSON for the error text. */
export type NamedKey = KnownKey & { readonly json: string }
