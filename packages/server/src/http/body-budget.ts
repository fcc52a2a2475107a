/**
 * Bounds the bytes of incoming request bodies held in memory across all connections. A limit per body is not enough:
 * thousands of slow connections could each hold one. Only received bytes count, not the announced length, so that a
 * client cannot use up the budget without sending.
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

  fits(bytes: number): boolean {
    return this.#heldBytes + bytes <= this.#maxBytes
  }

  take(bytes: number): void {
    this.#heldBytes += bytes
  }

  release(bytes: number): void {
    this.#heldBytes -= bytes
  }
}
