/**
 * A device's state: the decoded records of a store, and the only way to change them.
 *
 *     update(change): check for other writers -> read again if so -> change(transaction) -> write -> done
 *                          ^                                                                  |
 *                          \------------------ stale: discard, read again -------------------/
 *
 * `change` is synchronous and sees only the transaction, so it can be repeated on newer state. Updates of one process
 * run one after another. A record that does not decode is damage, and damage is an error, never a fresh start.
 */
import { StaleStoreError, type Store, StoreError } from './store.ts'

/** A family of records with one shape. Values are plain JSON and never mutated. */
export type Kind<T> = {
  readonly name: string
  /** Whether a decoded value has the shape. */
  readonly check: (value: unknown) => value is T
}

/** Read access to the state. */
export interface View {
  /** The generation of this state. */
  readonly generation: number
  get<T>(kind: Kind<T>, id: string): T | undefined
  /** Every record of a kind, by ID, in no particular order. */
  all<T>(kind: Kind<T>): ReadonlyMap<string, T>
}

/** Write access to the state, inside one update. */
export interface Transaction extends View {
  put<T>(kind: Kind<T>, id: string, value: T): void
  delete(kind: Kind<unknown>, id: string): void
}

/** Attempts of one update: each failed one means that another writer made progress. */
const MAX_ATTEMPTS = 100

type Records = Map<string, Map<string, unknown>>

export class StoredState {
  readonly #store: Store
  readonly #kinds: ReadonlyMap<string, Kind<unknown>>
  #generation = -1
  #records: Records = new Map()
  #last: Promise<unknown> = Promise.resolve()

  private constructor(store: Store, kinds: readonly Kind<unknown>[]) {
    this.#store = store
    this.#kinds = new Map(kinds.map((kind) => [kind.name, kind]))
  }

  /** @throws {StoreError} when the store is unreadable, corrupted, or has records of an unknown kind */
  static async open(store: Store, kinds: readonly Kind<unknown>[]): Promise<StoredState> {
    const state = new StoredState(store, kinds)
    await state.#refresh()
    return state
  }

  /** The current state, including writes of other processes. */
  read<T>(look: (view: View) => T): Promise<T> {
    return this.#inTurn(async () => {
      await this.#refresh()
      return look(new Draft(this.#generation, this.#records))
    })
  }

  /**
   * Changes the state in one durable step and resolves with the result of `change`. `change` may run several times; it
   * must be synchronous. If it throws, the state stays as it was.
   */
  update<T>(change: (transaction: Transaction) => T): Promise<T> {
    return this.#inTurn(async () => {
      for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
        if (attempt > 1 || this.#generation < 0) await this.#refresh()
        const draft = new Draft(this.#generation, this.#records)
        const result = change(draft)
        if (draft.changes.size === 0) {
          // Decided on a possibly old state: correct only if that is current.
          if ((await this.#store.generation()) === this.#generation) return result
          continue
        }
        try {
          this.#generation = await this.#store.write(this.#generation, draft.encoded())
          draft.applyTo(this.#records)
          return result
        } catch (error) {
          if (!(error instanceof StaleStoreError)) {
            this.#generation = -1
            throw error
          }
        }
      }
      throw new StoreError(
        'unreadable',
        `the store changed ${MAX_ATTEMPTS} times during one update; giving up`,
      )
    })
  }

  /** Runs `work` while no other process or tab runs theirs (`Store.exclusively`). */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    return this.#store.exclusively(work)
  }

  async #refresh(): Promise<void> {
    if (this.#generation >= 0 && (await this.#store.generation()) === this.#generation) return
    const snapshot = await this.#store.read()
    const records: Records = new Map()
    for (const [key, text] of snapshot.records) {
      const { kind, id, value } = this.#decode(key, text)
      const family = records.get(kind) ?? new Map<string, unknown>()
      family.set(id, value)
      records.set(kind, family)
    }
    this.#records = records
    this.#generation = snapshot.generation
  }

  #decode(key: string, text: string): { kind: string; id: string; value: unknown } {
    const slash = key.indexOf('/')
    const name = key.slice(0, slash)
    const kind = this.#kinds.get(name)
    if (kind === undefined) {
      throw new StoreError(
        'foreign',
        `the store has a record "${key}" of an unknown kind, from a newer version or another use. ` +
          'Update @latchkey/client, or use one store per device.',
      )
    }
    let value: unknown
    try {
      value = JSON.parse(text)
    } catch (error) {
      throw damaged(key, { cause: error })
    }
    if (!kind.check(value)) throw damaged(key)
    return { kind: name, id: key.slice(slash + 1), value }
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work)
    this.#last = turn.catch(() => undefined)
    return turn
  }
}

function damaged(key: string, options?: ErrorOptions): StoreError {
  return new StoreError(
    'corrupted',
    `the record "${key}" of the store is damaged. ` +
      'Restore the store from a copy, or delete it and log in as a new device.',
    options,
  )
}

const DELETED = Symbol('deleted')

/** A transaction: the previous state, overlaid with changes. */
class Draft implements Transaction {
  readonly generation: number
  readonly #base: Records
  readonly changes = new Map<string, { kind: string; id: string; value: unknown }>()

  constructor(generation: number, base: Records) {
    this.generation = generation
    this.#base = base
  }

  get<T>(kind: Kind<T>, id: string): T | undefined {
    const changed = this.changes.get(`${kind.name}/${id}`)
    const value = changed === undefined ? this.#base.get(kind.name)?.get(id) : changed.value
    return value === DELETED ? undefined : (value as T | undefined)
  }

  all<T>(kind: Kind<T>): ReadonlyMap<string, T> {
    const base = this.#base.get(kind.name) as Map<string, T> | undefined
    if (this.changes.size === 0) return base ?? new Map<string, T>()
    const merged = new Map(base)
    for (const change of this.changes.values()) {
      if (change.kind !== kind.name) continue
      if (change.value === DELETED) merged.delete(change.id)
      else merged.set(change.id, change.value as T)
    }
    return merged
  }

  put<T>(kind: Kind<T>, id: string, value: T): void {
    this.changes.set(`${kind.name}/${id}`, { kind: kind.name, id, value })
  }

  delete(kind: Kind<unknown>, id: string): void {
    this.changes.set(`${kind.name}/${id}`, { kind: kind.name, id, value: DELETED })
  }

  encoded(): Map<string, string | undefined> {
    return new Map(
      [...this.changes].map(([key, { value }]) => [
        key,
        value === DELETED ? undefined : JSON.stringify(value),
      ]),
    )
  }

  applyTo(records: Records): void {
    for (const { kind, id, value } of this.changes.values()) {
      const family = records.get(kind) ?? new Map<string, unknown>()
      if (value === DELETED) family.delete(id)
      else family.set(id, value)
      records.set(kind, family)
    }
  }
}
