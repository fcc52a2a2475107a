/**
 * How many bytes of request bodies may be in memory while they arrive, all connections together. A bound on each body
 * is not enough: thousands of slow connections could each hold one. What counts is what has come, not what a header
 * announced, so that nobody fills the budget without sending.
 */
export class BodyBudget {
  readonly #maxBytes: number
  #heldBytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  get heldBytes(): number {
    return this.#heldBytes
  }

  hasRoom(bytes: number): boolean {
    return this.#heldBytes + bytes <= this.#maxBytes
  }

  take(bytes: number): void {
    this.#heldBytes += bytes
  }

  give(bytes: number): void {
    this.#heldBytes -= bytes
  }
}
