/** A table's rows in 32 bytes, in whatever order they come: how both sides of an import are compared. */
import { hash } from 'node:crypto'
import { emptyDigest, mixIn } from '@latchkey/protocol'

/** As both drivers have it, once booleans and hashes are what PostgreSQL makes of them. */
export type Value = string | number | boolean | Uint8Array | null

/** In the order of the table's columns (table-copy.ts). */
export type Row = readonly Value[]

export class Fingerprint {
  #rows = 0
  readonly #sum = emptyDigest()

  get rows(): number {
    return this.#rows
  }

  add(row: Row): void {
    this.#rows++
    mixIn(this.#sum, hash('sha256', row.map(textOf).join(''), 'buffer'))
  }

  equals(other: Fingerprint): boolean {
    return this.#rows === other.#rows && Buffer.compare(this.#sum, other.#sum) === 0
  }
}

/** No two rows have the same text: each value says its kind, and texts their length. */
function textOf(value: Value): string {
  if (value === null) return 'n;'
  if (typeof value === 'string') return `s${value.length}:${value};`
  if (typeof value === 'object') return `x${Buffer.from(value).toString('hex')};`
  return `${typeof value} ${value};`
}
