/** Compares the answers of two servers without the values that each server generates. */
import { isDeepStrictEqual } from 'node:util'
import type { AnyJson } from '@latchkey/testing/test-server.ts'
import { type Answer, type Both, both, type StoreName } from './server-pair.ts'

/**
 * Access tokens, positions and cursors of one server, and the sessions of its interactive authentication.
 * `last_seen_ts` is approximate: a timer writes it, except while the device's row is locked.
 */
const OPAQUE: ReadonlySet<string> = new Set(['access_token', 'next_batch', 'session', 'last_seen_ts'])
/** Lists without an order: users whose device lists changed. */
const SETS: ReadonlySet<string> = new Set(['changed'])

/** The epochs that each server has shown. An epoch is compared by its place among them: first, second and so on. */
export class Epochs {
  readonly #seen: Both<string[]> = both(() => [])

  /** The answer with opaque members blanked, sets sorted and epochs numbered. */
  normalise(store: StoreName, { status, body }: Answer): Answer {
    this.#collect(store, body)
    return { status, body: this.#rewrite(store, body) }
  }

  #collect(store: StoreName, value: AnyJson): void {
    if (typeof value !== 'object' || value === null) return
    for (const [name, member] of Object.entries(value)) {
      if (name === 'epoch' && typeof member === 'string') {
        if (!this.#seen[store].includes(member)) this.#seen[store].push(member)
      } else this.#collect(store, member)
    }
  }

  #rewrite(store: StoreName, value: AnyJson): AnyJson {
    if (typeof value === 'string') return this.#withNumberedEpochs(store, value)
    if (Array.isArray(value)) return value.map((element) => this.#rewrite(store, element))
    if (typeof value !== 'object' || value === null) return value
    const members = Object.entries(value).map(([name, member]: [string, AnyJson]): [string, AnyJson] => {
      if (OPAQUE.has(name)) return [name, '(opaque)']
      if (SETS.has(name) && Array.isArray(member)) return [name, member.toSorted()]
      return [name, this.#rewrite(store, member)]
    })
    return Object.fromEntries(members)
  }

  #withNumberedEpochs(store: StoreName, text: string): string {
    return this.#seen[store].reduce((kept, epoch, i) => kept.replaceAll(epoch, `(epoch ${i + 1})`), text)
  }
}

/** The first place where two answers differ; undefined when they are the same. */
export function firstDifference({ sqlite, postgres }: Both<Answer>): string | undefined {
  return (
    differenceAt('status', sqlite.status, postgres.status) ?? differenceAt('body', sqlite.body, postgres.body)
  )
}

function differenceAt(path: string, sqlite: AnyJson, postgres: AnyJson): string | undefined {
  if (isDeepStrictEqual(sqlite, postgres)) return undefined
  if (isContainer(sqlite) && isContainer(postgres) && Array.isArray(sqlite) === Array.isArray(postgres)) {
    for (const name of new Set([...Object.keys(sqlite), ...Object.keys(postgres)])) {
      const difference = differenceAt(`${path}[${JSON.stringify(name)}]`, sqlite[name], postgres[name])
      if (difference !== undefined) return difference
    }
  }
  return `${path}: sqlite ${JSON.stringify(sqlite)}, postgres ${JSON.stringify(postgres)}`
}

function isContainer(value: unknown): value is Record<string, AnyJson> {
  return typeof value === 'object' && value !== null
}
