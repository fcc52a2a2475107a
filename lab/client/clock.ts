/** The clock of one device: real time, and what a scenario lets pass at once. Rounds are a minute apart. */

export const BETWEEN_ROUNDS_MS = 60_000

export class Clock {
  #ahead = 0

  /** To be given away as a function. */
  readonly now = (): number => Date.now() + this.#ahead

  /** Negative to set it back. */
  pass(ms: number): void {
    this.#ahead += ms
  }
}
