/** A hash of a table's rows in any order, for the comparison of both sides of an import. */
import { hash } from 'node:crypto'
import { emptyDigest, mixIn } from '@latchkey/protocol'

/** A value that both drivers return alike, after the conversion to PostgreSQL's types. */
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

/** Two different rows never have the same text: it has the type of each value and the length of each string. */
function textOf(value: Value): string {
  if (value === null) return 'n;'
  if (typeof value === 'string') return `s${value.length}:${value};`
  if (typeof value === 'object') return `x${Buffer.from(value).toString('hex')};`
  return `${typeof value} ${value};`
}
