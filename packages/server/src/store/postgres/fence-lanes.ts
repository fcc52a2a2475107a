/** The lanes of one process: numbers of write counters, each used by one transaction at a time. */
import { unavailable } from '../../matrix-error.ts'

type Lane = { readonly number: number; readonly usableAtMs: number }

/** More lanes than connections are needed only while connections break one after the other. */
const MAX_LANES_PER_CONNECTION = 8

/** The transaction of a broken connection may keep its lane locked this long. Until then other lanes are used. */
const REST_MS = 30_000

export class FenceLanes {
  readonly #connections: number
  #free: Lane[] = []
  #count = 0

  constructor(connections: number) {
    this.#connections = connections
  }

  /** Lanes that may be taken soon: after the loss of all connections as many new ones are needed. */
  get wanted(): number {
    return this.#count + this.#connections
  }

  /** A lane without a transaction of this process. @throws {MatrixError} 503 when too many lanes rest */
  take(): number {
    if (this.#count >= MAX_LANES_PER_CONNECTION * this.#connections && this.#free.every(isResting))
      throw unavailable('Too many database connections broke one after the other.')
    const i = this.#free.findIndex((lane) => !isResting(lane))
    const [lane] = i === -1 ? [] : this.#free.splice(i, 1)
    return lane?.number ?? this.#count++
  }

  /** @param broken the lane's transaction may not have ended yet */
  release(number: number, broken: boolean): void {
    this.#free.push({ number, usableAtMs: broken ? performance.now() + REST_MS : 0 })
  }
}

function isResting({ usableAtMs }: Lane): boolean {
  return usableAtMs > performance.now()
}
