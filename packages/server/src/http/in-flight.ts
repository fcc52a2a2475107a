/**
 * Requests that are worked on at the same time: bounded per device and per user, and one large request per user, so
 * that one account holds neither the database's connections nor the thread (issue 11, C1). Further ones wait in line
 * with their bodies, which their user has paid for (payer.ts).
 */
import { Gate } from '../lib/gate.ts'
import { limitExceeded } from '../matrix-error.ts'
import type { Session } from '../session.ts'

export type InFlightLimits = {
  readonly requestsInFlightPerDevice: number
  readonly requestsInFlightPerUser: number
}

/** About 10 ms of work (costs.ts). */
const LARGE_UNITS = 1_000
const MAX_WAITING = 100
const RETRY_MS = 1_000

export class InFlight {
  readonly #devices: Gate
  readonly #users: Gate
  readonly #large = new Gate(1, MAX_WAITING)

  constructor({ requestsInFlightPerDevice, requestsInFlightPerUser }: InFlightLimits) {
    this.#devices = new Gate(requestsInFlightPerDevice, MAX_WAITING)
    this.#users = new Gate(requestsInFlightPerUser, MAX_WAITING)
  }

  /**
   * Runs the work when its device and its user have a place.
   *
   * @throws {MatrixError} 429 when too many requests wait already.
   */
  async run<T>({ deviceRef, userRef }: Session, units: number, work: () => Promise<T>): Promise<T> {
    const device = String(deviceRef)
    const user = String(userRef)
    const places: (readonly [Gate, string])[] = [
      [this.#devices, device],
      [this.#users, user],
      ...(units < LARGE_UNITS ? [] : [[this.#large, user] as const]),
    ]
    const entered: (readonly [Gate, string])[] = []
    try {
      for (const [gate, key] of places) {
        const place = gate.enter(key)
        if (place === undefined) {
          throw limitExceeded('Too many requests of this user wait for earlier ones: retry later.', RETRY_MS)
        }
        await place
        entered.push([gate, key])
      }
      return await work()
    } finally {
      for (const [gate, key] of entered) gate.leave(key)
    }
  }
}
