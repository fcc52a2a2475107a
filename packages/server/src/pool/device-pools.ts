/**
 * The pools of one device while a request changes them: made from facts, changed by the rules of this folder, read
 * out as a status for the answer and as changes for the store. Only memory changes; a refused request discards
 * the object.
 */
import { type Algorithm, base64Url, compareCodePoints, emptyDigest } from '@latchkey/protocol'
import type { PoolStatus } from './commands.ts'
import { keyHash } from './key.ts'
import { Pool } from './pool.ts'
import type { DeviceFacts, PoolsChange } from './port.ts'
import type { PurgeRule } from './purge.ts'

export class DevicePools {
  readonly #facts: DeviceFacts
  readonly #pools: Map<Algorithm, Pool>

  constructor(facts: DeviceFacts) {
    this.#facts = facts
    this.#pools = new Map(facts.pools.map((pool) => [pool.algorithm, new Pool(pool, false)]))
  }

  /** By name of their algorithm, in code-point order. */
  get all(): readonly Pool[] {
    return [...this.#pools.values()].sort((a, b) => compareCodePoints(a.algorithm, b.algorithm))
  }

  get algorithms(): ReadonlySet<Algorithm> {
    return new Set(this.#pools.keys())
  }

  get(algorithm: Algorithm): Pool | undefined {
    return this.#pools.get(algorithm)
  }

  /** The pool of an algorithm, a new one if the device has none. */
  open(algorithm: Algorithm): Pool {
    const known = this.#pools.get(algorithm)
    if (known !== undefined) return known
    const made = new Pool({ ...EMPTY_POOL, algorithm, digest: emptyDigest() }, true)
    this.#pools.set(algorithm, made)
    return made
  }

  /** Purges every pool. */
  purge(rule: PurgeRule): void {
    for (const pool of this.#pools.values()) pool.purge(rule)
  }

  /** Counts, digests and numbers as the answer has them after the changes. */
  status({ left = false } = {}): PoolStatus {
    const { version, generation } = this.#numbers(left)
    return {
      epoch: this.#facts.epoch,
      version,
      generation,
      algorithms: this.#existing.map(({ algorithm, count, digest, fallback }) => ({
        algorithm,
        count,
        digest: base64Url(digest),
        ...(fallback && { fallback: { keyHash: keyHash(fallback.material), used: fallback.used } }),
      })),
    }
  }

  /**
   * The changes to save; undefined when no pool changed.
   *
   * @param left keys left other than by being issued: the generation grows
   */
  changes({
    left,
    signal,
    now,
  }: {
    readonly left: boolean
    readonly signal: boolean
    readonly now: number
  }): PoolsChange | undefined {
    const pools = [...this.#pools.values()].flatMap((pool) => pool.change() ?? [])
    if (pools.length === 0 && !left) return undefined
    return { now, ...this.#numbers(left), signal, pools }
  }

  get #existing(): readonly Pool[] {
    return this.all.filter((pool) => pool.exists)
  }

  /** One request moves the version by one, regardless of how much it changes (docs/decisions/0015). */
  #numbers(left: boolean): { readonly version: number; readonly generation: number } {
    const { version, generation } = this.#facts
    const changed = left || [...this.#pools.values()].some((pool) => pool.isChanged)
    return { version: version + (changed ? 1 : 0), generation: generation + (left ? 1 : 0) }
  }
}

const EMPTY_POOL = {
  count: 0,
  fallback: undefined,
  met: new Map(),
  availableById: new Map(),
  addedSinceIssued: new Map(),
  oldest: [],
  available: [],
  formerFallbacks: new Set<never>(),
} as const
