/**
 * One pool while a request changes it: the keys that leave, the keys that are appended, the fallback key, and with them
 * the count and the digest. Which of this happens is decided by the rules of this folder.
 */
import { type Algorithm, emptyDigest, type KeyId, type KeyMaterial, mixIn } from '@latchkey/protocol'
import {
  type HashedKey,
  type MaterialHash,
  materialHash,
  type Removal,
  shareOf,
  type UploadedKey,
} from './key.ts'
import type { PoolMemory } from './outcomes.ts'
import type { KnownKey, MetKey, NamedKey } from './log-key.ts'
import type { PoolChange, PoolFacts } from './port.ts'
import type { PurgeRule } from './purge.ts'

type Added = { readonly key: HashedKey; state: 'available' | 'evicted' }
type Fallback = { readonly material: KeyMaterial; readonly used: boolean }

export class Pool implements PoolMemory {
  readonly #facts: PoolFacts
  readonly #isNew: boolean
  #count: number
  #digest: Uint8Array
  readonly #removed = new Map<number, Removal>()
  #cleared: { readonly as: Removal; readonly kept: ReadonlyMap<number, KnownKey> } | undefined
  #hidesIssued = false
  readonly #added: Added[] = []
  #fallback: Fallback | undefined
  #newFallback: UploadedKey | undefined
  #formerFallback: Removal | undefined

  constructor(facts: PoolFacts, isNew: boolean) {
    this.#facts = facts
    this.#isNew = isNew
    this.#count = facts.count
    this.#digest = Uint8Array.from(facts.digest)
    this.#fallback = facts.fallback
  }

  get algorithm(): Algorithm {
    return this.#facts.algorithm
  }

  get count(): number {
    return this.#count
  }

  /** 32 bytes */
  get digest(): Uint8Array {
    return this.#digest
  }

  get fallback(): Fallback | undefined {
    return this.#fallback
  }

  get isChanged(): boolean {
    return (
      this.#hidesIssued ||
      this.#removed.size > 0 ||
      this.#cleared !== undefined ||
      this.#added.length > 0 ||
      this.#formerFallback !== undefined ||
      this.#newFallback !== undefined
    )
  }

  /** False for a pool that the request would make and that got no key. */
  get exists(): boolean {
    return !this.#isNew || this.isChanged
  }

  /** All that were available before the request. Only where the store was asked to list them. */
  get listed(): PoolFacts['available'] {
    return this.#facts.available
  }

  byMaterial(hash: MaterialHash): ReturnType<PoolMemory['byMaterial']> {
    const met = this.#facts.met.get(hash)
    if (met === undefined || met.state !== 'available') return met
    const removal = this.#removalOf(met.place)
    if (removal === 'withdrawn') return undefined
    return removal === undefined ? met : { ...met, state: removal }
  }

  availableById(keyId: KeyId): NamedKey | undefined {
    const key = this.#facts.availableById.get(keyId)
    return key !== undefined && this.#removalOf(key.place) === undefined ? key : undefined
  }

  addedSinceIssued(keyId: KeyId): number | undefined {
    return this.#facts.addedSinceIssued.get(keyId)
  }

  /** Whether this material was a fallback key of the pool before. */
  wasFallback(hash: MaterialHash): boolean {
    if (this.#facts.formerFallbacks.has(hash)) return true
    const { fallback } = this.#facts
    return (
      this.#formerFallback !== undefined && fallback !== undefined && materialHash(fallback.material) === hash
    )
  }

  /** Whether the fallback key of the pool has this material, or a former one. */
  hasFallback({ material, hash }: Pick<HashedKey, 'material' | 'hash'>): boolean {
    return this.#fallback?.material === material || this.wasFallback(hash)
  }

  /** Whether a one-time key that was not withdrawn has this material, keys of the request included. */
  hasOneTimeKey(hash: MaterialHash): boolean {
    return this.byMaterial(hash) !== undefined || this.#added.some(({ key }) => key.hash === hash)
  }

  /** Which keys with the material of these are available. */
  availableAmong(keys: readonly HashedKey[]): readonly (KnownKey & MetKey)[] {
    const found = new Map<number, KnownKey & MetKey>()
    for (const { hash, material } of keys) {
      const met = this.#facts.met.get(hash)
      if (met?.state !== 'available' || this.#removalOf(met.place) !== undefined) continue
      found.set(met.place, { ...met, material })
    }
    return [...found.values()]
  }

  /** Removes available keys one by one. */
  remove(keys: readonly KnownKey[], as: Removal): void {
    for (const { place, keyId, material } of keys) {
      this.#removed.set(place, as)
      this.#count--
      this.#mix(keyId, material)
    }
  }

  /** Removes every key that was available before the request, except `kept`. */
  clear(as: Removal, kept: readonly KnownKey[] = []): void {
    if (this.#count === kept.length) return
    this.#cleared = { as, kept: new Map(kept.map((key) => [key.place, key])) }
    this.#count = kept.length
    this.#digest = emptyDigest()
    for (const { keyId, material } of kept) this.#mix(keyId, material)
  }

  purge({ fallbackKeys, hidesIssued }: PurgeRule): void {
    this.clear('purged')
    this.#hidesIssued = hidesIssued
    if (fallbackKeys && this.#fallback !== undefined) {
      this.#formerFallback = 'purged'
      this.#fallback = undefined
    }
  }

  /** Appends keys to the log, in this order. */
  append(keys: readonly HashedKey[]): void {
    for (const key of keys) {
      this.#added.push({ key, state: 'available' })
      this.#count++
      this.#mix(key.keyId, key.material)
    }
  }

  /** Takes the oldest `n` keys out, in upload order. Returns their IDs. */
  evict(n: number): KeyId[] {
    const leaving = this.#oldest().slice(0, n)
    this.remove(leaving, 'evicted')
    const fresh = this.#added.slice(0, n - leaving.length)
    for (const added of fresh) {
      added.state = 'evicted'
      this.#count--
      this.#mix(added.key.keyId, added.key.material)
    }
    return [...leaving.map((key) => key.keyId), ...fresh.map(({ key }) => key.keyId)]
  }

  /** A new fallback key. The one before is remembered, so that a late duplicate of it does not replace the new one. */
  replaceFallback(key: UploadedKey): void {
    if (this.#fallback !== undefined) this.#formerFallback = 'withdrawn'
    this.#newFallback = key
    this.#fallback = { material: key.material, used: false }
  }

  /** The change to save; undefined when nothing changed. */
  change(): PoolChange | undefined {
    if (!this.isChanged) return undefined
    return {
      algorithm: this.algorithm,
      isNew: this.#isNew,
      count: this.#count,
      digest: this.#digest,
      filled: this.#added.length > 0 ? this.#count : undefined,
      removed: this.#removed,
      cleared: this.#cleared && { as: this.#cleared.as, kept: [...this.#cleared.kept.keys()] },
      hidesIssued: this.#hidesIssued,
      added: this.#added,
      formerFallback: this.#formerFallback,
      fallback: this.#newFallback,
    }
  }

  #removalOf(place: number): Removal | undefined {
    const removal = this.#removed.get(place)
    if (removal !== undefined || this.#cleared === undefined) return removal
    return this.#cleared.kept.has(place) ? undefined : this.#cleared.as
  }

  /** Those of the request's own keys follow: they are in `#added`. */
  #oldest(): readonly KnownKey[] {
    const { oldest } = this.#facts
    const known = this.#cleared === undefined ? oldest : [...this.#cleared.kept.values()]
    return known.filter(({ place }) => !this.#removed.has(place)).sort((a, b) => a.place - b.place)
  }

  #mix(keyId: KeyId, material: KeyMaterial): void {
    mixIn(this.#digest, shareOf(this.algorithm, keyId, material))
  }
}
