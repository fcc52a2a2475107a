/**
 * Places per key: so many are in use at once, further callers wait in line, and the line has an end. Used for the
 * requests of one device or user that are worked on at the same time (issue 11, C1).
 */
type Line = { used: number; readonly waiting: (() => void)[] }

export class Gate {
  readonly #places: number
  readonly #maxWaiting: number
  readonly #lines = new Map<string, Line>()

  constructor(places: number, maxWaiting: number) {
    this.#places = places
    this.#maxWaiting = maxWaiting
  }

  /** Takes a place for the caller, who has to `leave`. Undefined if the line is full: no place will be taken. */
  enter(key: string): Promise<void> | undefined {
    const line = this.#lines.get(key)
    if (line === undefined) this.#lines.set(key, { used: 1, waiting: [] })
    else if (line.used < this.#places) line.used++
    else if (line.waiting.length >= this.#maxWaiting) return undefined
    else return new Promise((resolve) => line.waiting.push(resolve))
    return ENTERED
  }

  /** Gives the place to the next in line. */
  leave(key: string): void {
    const line = this.#lines.get(key)
    if (line === undefined) return
    const next = line.waiting.shift()
    if (next !== undefined) next()
    else if (--line.used === 0) this.#lines.delete(key)
  }
}

const ENTERED = Promise.resolve()
