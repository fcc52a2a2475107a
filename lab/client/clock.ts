/** A device's clock: real time plus the time that a scenario adds. Rounds are a minute apart. */

export const BETWEEN_ROUNDS_MS = 60_000

export class Clock {
  #ahead = 0

  /** Bound, so that it can be passed as a function. */
  readonly now = (): number => Date.now() + this.#ahead

  /** A negative value sets the clock to the past. */
  pass(ms: number): void {
    this.#ahead += ms
  }
}
