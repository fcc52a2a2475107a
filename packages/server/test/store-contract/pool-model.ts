/**
 * An independent model of the key pools, written from key-pool.md without any of the server's code: plain arrays and
 * sets, one operation after the other. The property test compares stores with it.
 */
import { createHash } from 'node:crypto'

export type ModelPolicy = {
  readonly heal: boolean
  readonly byKeyId: boolean
  readonly cap: number
}

export type ModelKey = {
  readonly algorithm: string
  readonly id: string
  readonly material: string
  readonly json: string
  readonly signedBy?: string
}

type Entry = ModelKey & { state: 'available' | 'issued' | 'withdrawn' | 'evicted' | 'purged' }

type Pool = {
  /** In upload order. */
  readonly log: Entry[]
  fallback: (ModelKey & { used: boolean; issueCount: number }) | undefined
  readonly formerFallbacks: Set<string>
  /** The available keys after the last upload. */
  filled: number
}

export type ModelOutcome =
  | { readonly refused: 400 | 401 | 409 }
  | {
      readonly outcomes: Record<string, string>
      readonly fallbackOutcomes: Record<string, string>
      readonly storedAs: Record<string, string>
      readonly evicted: readonly string[]
    }

export type ModelReset = ModelOutcome & {
  readonly withdrawn?: readonly string[]
  readonly absent?: readonly string[]
}

/** One device of one user, including removals and later logins. */
export class ModelDevice {
  readonly #policy: ModelPolicy
  exists = true
  identity: string | undefined
  formerIdentities = new Set<string>()
  pools = new Map<string, Pool>()
  /** The version and the generation, each from zero. */
  version = 0
  generation = 0
  /** Whether the request under way changed anything, and whether keys left other than by being issued. */
  #changed = false
  #left = false
  #conflict: { readonly materials: string; readonly ts: number } | undefined

  constructor(policy: ModelPolicy) {
    this.#policy = policy
  }

  /** A copy with the same history. */
  copy(): ModelDevice {
    const { exists, identity, formerIdentities, pools, version, generation } = this
    const copy = Object.assign(
      new ModelDevice(this.#policy),
      structuredClone({ exists, identity, formerIdentities, pools, version, generation }),
    )
    copy.#conflict = this.#conflict
    return copy
  }

  /** All state that affects its future, as text. */
  state(): string {
    const pools = [...this.pools]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, { log, fallback, formerFallbacks, filled }]) => [
        name,
        log,
        fallback,
        [...formerFallbacks].sort(),
        filled,
      ])
    const { exists, identity, formerIdentities, version, generation } = this
    const numbers = [version, generation]
    return JSON.stringify([exists, identity, [...formerIdentities].sort(), pools, this.#conflict, numbers])
  }

  /** A purge counts once in the version and in the generation. A device that does not exist is not removed. */
  remove(): void {
    if (!this.exists) return
    this.#purge()
    this.version++
    this.generation++
    this.exists = false
    this.identity = undefined
    this.formerIdentities = new Set()
    this.#conflict = undefined
  }

  revive(): void {
    this.exists = true
  }

  upload(request: {
    readonly identity?: string
    readonly keys: readonly ModelKey[]
    readonly fallbacks: readonly ModelKey[]
    readonly now: number
  }): ModelOutcome {
    if (!this.exists) return { refused: 401 }
    return this.#allOrNothing(() => {
      const { identity } = request
      if (identity !== undefined) {
        if (this.formerIdentities.has(identity) && identity !== this.identity) return { refused: 400 }
        if (this.identity !== undefined && identity !== this.identity) {
          this.formerIdentities.add(this.identity)
          this.#purge()
          this.#changed = true
          this.#left = true
        }
        this.identity = identity
      }
      return this.#store(request, this.#policy.heal)
    })
  }

  reset(request: {
    readonly all: boolean
    readonly names: readonly string[]
    readonly keys: readonly ModelKey[]
    readonly fallbacks: readonly ModelKey[]
    readonly now: number
  }): ModelReset {
    if (!this.exists) return { refused: 401 }
    return this.#allOrNothing(() => {
      const withdrawn: string[] = []
      const absent: string[] = []
      const offered = (entry: Entry): boolean =>
        request.keys.some((key) => key.algorithm === entry.algorithm && key.material === entry.material)
      const take = (entry: Entry): void => {
        if (offered(entry)) return
        entry.state = 'withdrawn'
        withdrawn.push(`${entry.algorithm}:${entry.id}`)
      }
      if (request.all) {
        for (const [, pool] of [...this.pools].sort(([a], [b]) => (a < b ? -1 : 1)))
          pool.log.filter(isAvailable).forEach(take)
      } else {
        for (const name of new Set(request.names)) {
          const entry = [...this.pools.values()]
            .flatMap((pool) => pool.log)
            .find((e) => isAvailable(e) && `${e.algorithm}:${e.id}` === name)
          if (entry === undefined) absent.push(name)
          else take(entry)
        }
      }
      if (withdrawn.length > 0) {
        this.#changed = true
        this.#left = true
      }
      const stored = this.#store(request, false)
      return 'refused' in stored ? stored : { ...stored, withdrawn, absent }
    })
  }

  /**
   * Returns the key's JSON, if any, and whether it is a fallback key although one-time keys are left; null if they are
   * withheld. `over`: the claimer has no budget left; `reserve`: but may have a key of the reserve.
   */
  claim(
    algorithm: string,
    budget: 'within' | 'over' | 'reserve',
  ): { json: string; rateLimited: boolean } | null | undefined {
    const pool = this.exists ? this.pools.get(algorithm) : undefined
    if (pool === undefined) return undefined
    const next = this.inIssueOrder(algorithm)[0]
    if (pool.fallback !== undefined && (budget !== 'within' || next === undefined)) {
      pool.fallback.used = true
      pool.fallback.issueCount++
      this.version++
      return { json: pool.fallback.json, rateLimited: next !== undefined }
    }
    if (next === undefined) return undefined
    const available = pool.log.filter(isAvailable).length
    if (budget === 'over' && available <= Math.max(5, pool.filled / 5)) return null
    next.state = 'issued'
    this.version++
    return { json: next.json, rateLimited: false }
  }

  /** The available keys of an algorithm, the next one to issue first. */
  inIssueOrder(algorithm: string): Entry[] {
    const available = this.pools.get(algorithm)?.log.filter(isAvailable) ?? []
    return this.#policy.byKeyId ? available.sort(byCodePoints) : available
  }

  /** The digest in base64url, computed from the available keys. */
  digest(algorithm: string): string {
    const digest = Buffer.alloc(32)
    for (const entry of this.inIssueOrder(algorithm)) {
      const share = createHash('sha256').update(`${algorithm}:${entry.id}\0${entry.material}`).digest()
      for (let i = 0; i < 32; i++) digest.writeUInt8(digest.readUInt8(i) ^ share.readUInt8(i), i)
    }
    return digest.toString('base64url')
  }

  /** A request that changes anything counts once in the version; one in which keys left, once in the generation. */
  #allOrNothing<T extends ModelOutcome>(run: () => T): T {
    const { pools, identity, formerIdentities } = this
    const before = structuredClone({ pools, identity, formerIdentities })
    this.#changed = false
    this.#left = false
    const outcome = run()
    if ('refused' in outcome) Object.assign(this, before)
    else {
      if (this.#changed || this.#left) this.version++
      if (this.#left) this.generation++
    }
    return outcome
  }

  #purge(): void {
    for (const pool of this.pools.values()) {
      for (const entry of pool.log) if (isAvailable(entry)) entry.state = 'purged'
      if (pool.fallback !== undefined) pool.formerFallbacks.add(pool.fallback.material)
      pool.fallback = undefined
    }
  }

  #pool(algorithm: string): Pool {
    const pool = this.pools.get(algorithm) ?? {
      log: [],
      fallback: undefined,
      formerFallbacks: new Set<string>(),
      filled: 0,
    }
    this.pools.set(algorithm, pool)
    return pool
  }

  #store(
    request: {
      readonly keys: readonly ModelKey[]
      readonly fallbacks: readonly ModelKey[]
      readonly now: number
    },
    mayHeal: boolean,
  ): ModelOutcome {
    const mustBeSigned = this.formerIdentities.size > 0
    if (
      mustBeSigned &&
      [...request.keys, ...request.fallbacks].some((key) => key.signedBy !== this.identity)
    ) {
      return { refused: 400 }
    }
    const conflicting = this.#conflicting(request.keys)
    if (conflicting.length > 0) {
      if (!mayHeal || !this.#isSecondTry(request.keys, request.now)) return { refused: 400 }
      for (const algorithm of new Set(conflicting.map((key) => key.algorithm)))
        this.#heal(algorithm, request.keys)
    }
    const result = { outcomes: {}, fallbackOutcomes: {}, storedAs: {}, evicted: [] as string[] }
    const touched = new Set<string>()
    const added = new Set<string>()
    for (const key of request.keys.toSorted(byPool)) {
      touched.add(key.algorithm)
      const pool = this.#pool(key.algorithm)
      const name = `${key.algorithm}:${key.id}`
      const known = pool.log.find((e) => e.material === key.material && e.state !== 'withdrawn')
      const outcome = (text: string): void => void Object.assign(result.outcomes, { [name]: text })
      if (known?.state === 'available') {
        outcome('already_stored')
        if (known.id !== key.id) Object.assign(result.storedAs, { [name]: `${key.algorithm}:${known.id}` })
      } else if (known?.state === 'issued') outcome('already_issued')
      else if (known !== undefined) outcome('already_removed')
      else if (this.#isElsewhere(key, 'one-time')) outcome('in_use_elsewhere')
      else {
        outcome(pool.log.some((e) => e.id === key.id && e.state === 'issued') ? 'id_reused' : 'stored')
        pool.log.push({ ...key, state: 'available' })
        added.add(key.algorithm)
        this.#changed = true
      }
    }
    for (const algorithm of touched) {
      const available = this.#pool(algorithm).log.filter(isAvailable)
      for (const entry of available.slice(0, Math.max(0, available.length - this.#policy.cap))) {
        entry.state = 'evicted'
        result.evicted.push(`${algorithm}:${entry.id}`)
        this.#left = true
      }
      if (added.has(algorithm)) {
        const pool = this.#pool(algorithm)
        pool.filled = pool.log.filter(isAvailable).length
      }
    }
    for (const key of request.fallbacks) {
      const pool = this.#pool(key.algorithm)
      const name = `${key.algorithm}:${key.id}`
      if (pool.fallback?.material === key.material)
        Object.assign(result.fallbackOutcomes, { [name]: 'already_stored' })
      else if (pool.formerFallbacks.has(key.material)) {
        Object.assign(result.fallbackOutcomes, { [name]: 'already_replaced' })
      } else if (this.#isElsewhere(key, 'fallback')) {
        Object.assign(result.fallbackOutcomes, { [name]: 'in_use_elsewhere' })
      } else {
        if (pool.fallback !== undefined) pool.formerFallbacks.add(pool.fallback.material)
        pool.fallback = { ...key, used: false, issueCount: 0 }
        this.#changed = true
        Object.assign(result.fallbackOutcomes, { [name]: 'stored' })
      }
    }
    return result
  }

  /** Material that is known, has a place elsewhere or comes earlier never conflicts; otherwise an available ID does. */
  #conflicting(keys: readonly ModelKey[]): ModelKey[] {
    const stored = new Set<string>()
    return keys.toSorted(byPool).filter((key) => {
      const log = this.pools.get(key.algorithm)?.log ?? []
      const isKnown = log.some((e) => e.material === key.material && e.state !== 'withdrawn')
      if (isKnown || stored.has(key.material) || this.#isElsewhere(key, 'one-time')) return false
      const conflicts = log.some((e) => isAvailable(e) && e.id === key.id)
      if (!conflicts) stored.add(key.material)
      return conflicts
    })
  }

  /** Whether the material is or was used for another algorithm or kind of key. Withdrawn keys do not count. */
  #isElsewhere({ algorithm, material }: ModelKey, as: 'one-time' | 'fallback'): boolean {
    return [...this.pools].some(([name, { log, fallback, formerFallbacks }]) => {
      const isOther = name !== algorithm
      const isLogged = log.some((e) => e.material === material && e.state !== 'withdrawn')
      const isFallback = fallback?.material === material || formerFallbacks.has(material)
      return ((isOther || as === 'fallback') && isLogged) || ((isOther || as === 'one-time') && isFallback)
    })
  }

  #isSecondTry(keys: readonly ModelKey[], now: number): boolean {
    const materials = keys
      .map((key) => `${key.algorithm} ${key.material}`)
      .sort()
      .join()
    const age = this.#conflict?.materials === materials ? now - this.#conflict.ts : undefined
    if (age === undefined || age > 3_600_000) {
      this.#conflict = { materials, ts: now }
      return false
    }
    if (age < 2_000) return false
    this.#conflict = undefined
    return true
  }

  /**
   * Removes everything available. Keys that the request offers again were not lost and may be stored again; others may
   * not.
   */
  #heal(algorithm: string, keys: readonly ModelKey[]): void {
    for (const entry of this.#pool(algorithm).log.filter(isAvailable)) {
      const offered = keys.some((key) => key.algorithm === algorithm && key.material === entry.material)
      entry.state = offered ? 'withdrawn' : 'purged'
    }
    this.#changed = true
    this.#left = true
  }
}

function isAvailable(entry: Entry): boolean {
  return entry.state === 'available'
}

/** By algorithm, then by ID. */
function byPool(a: ModelKey, b: ModelKey): number {
  return Buffer.compare(Buffer.from(a.algorithm), Buffer.from(b.algorithm)) || byCodePoints(a, b)
}

/** Compares UTF-8 bytes, which sort as code points do. */
function byCodePoints(a: { readonly id: string }, b: { readonly id: string }): number {
  return Buffer.compare(Buffer.from(a.id), Buffer.from(b.id))
}
