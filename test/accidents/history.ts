/** The independent checker: what claims returned over the whole history of one installation. */
import assert from 'node:assert/strict'

export class History {
  readonly #issued: string[] = []
  refusals = 0

  issued(key: string | undefined): void {
    // The fallback key may be returned many times.
    if (key !== undefined && key !== 'FALLBACK') this.#issued.push(key)
  }

  get count(): number {
    return this.#issued.length
  }

  /** Every key returned by a claim is another one. */
  assertOnce(): void {
    const twice = this.#issued.filter((key, n) => this.#issued.indexOf(key) !== n)
    assert.deepEqual(twice, [], 'keys were issued twice')
  }
}
