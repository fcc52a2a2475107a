/**
 * Passwords as argon2id hashes (RFC 9106; password-hash.ts), made by node:crypto off the main thread. Each takes 19 MiB
 * and about 30 ms by default, so only a few run at once and few wait.
 */
import { argon2, randomBytes, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import { Gate } from '../lib/gate.ts'
import { limitExceeded } from '../matrix-error.ts'
import {
  DEFAULT_COST,
  formatHash,
  type HashCost,
  isCheaper,
  parseHash,
  type PasswordHash,
} from './password-hash.ts'

const argon2Async = promisify(argon2)

const RUNNING = 2
const WAITING = 200
const TAG_BYTES = 32

export class Passwords {
  readonly #cost: HashCost
  #running = 0
  /** Calls of known clients, which go first, and others: a flood of strangers fills only the second list. */
  readonly #waiting = { known: new Array<() => void>(), others: new Array<() => void>() }
  /** One account's known clients take a few places ahead of strangers, and none of those of other known clients. */
  readonly #ofAccount = new Gate(RUNNING, WAITING)

  /** @param cost of new hashes */
  constructor(cost: HashCost = DEFAULT_COST) {
    this.#cost = cost
  }

  /**
   * @param isKnown puts the call ahead of those of clients that are not known
   * @throws {MatrixError} 429 when too many wait.
   */
  async hash(password: string, isKnown = false): Promise<string> {
    const { memory, passes } = this.#cost
    const unhashed = { memory, passes, salt: randomBytes(16), tag: Buffer.alloc(TAG_BYTES) }
    return formatHash({ ...unhashed, tag: await this.#derive(password, unhashed, isKnown) })
  }

  /** Whether a hash was made with less than the present cost. */
  isOutdated(stored: string): boolean {
    const hash = parseHash(stored)
    return hash !== undefined && isCheaper(hash, this.#cost)
  }

  /**
   * Whether a password belongs to a hash. Takes as long for a missing account as for one with a hash of the present
   * cost, so that the two cannot be distinguished.
   *
   * @param knownTo the account that knows the client, which goes ahead of those that are not known
   * @throws {MatrixError} 429 when too many wait.
   */
  async verify(password: string, stored: string | undefined, knownTo?: string): Promise<boolean> {
    if (knownTo === undefined) return this.#matches(password, stored, false)
    const place = this.#ofAccount.enter(knownTo)
    if (place === undefined) throw tooMany()
    await place
    try {
      return await this.#matches(password, stored, true)
    } finally {
      this.#ofAccount.leave(knownTo)
    }
  }

  async #matches(password: string, stored: string | undefined, isKnown: boolean): Promise<boolean> {
    const hash = parseHash(stored ?? '')
    const missing = { ...this.#cost, salt: randomBytes(16), tag: Buffer.alloc(TAG_BYTES) }
    const derived = await this.#derive(password, hash ?? missing, isKnown)
    return hash !== undefined && timingSafeEqual(derived, hash.tag)
  }

  async #derive(
    password: string,
    { memory, passes, salt, tag }: PasswordHash,
    isKnown: boolean,
  ): Promise<Buffer> {
    await this.#enter(isKnown ? this.#waiting.known : this.#waiting.others)
    try {
      const parameters = { memory, passes, parallelism: 1, tagLength: tag.length }
      return await argon2Async('argon2id', { message: password, nonce: salt, ...parameters })
    } finally {
      this.#leave()
    }
  }

  async #enter(waiting: (() => void)[]): Promise<void> {
    if (this.#running < RUNNING) {
      this.#running++
      return
    }
    if (waiting.length >= WAITING) throw tooMany()
    await new Promise<void>((resolve) => waiting.push(resolve))
  }

  /** Passes the place to the known client that has waited longest, or else to another. */
  #leave(): void {
    const next = this.#waiting.known.shift() ?? this.#waiting.others.shift()
    if (next === undefined) this.#running--
    else next()
  }
}

function tooMany(): Error {
  return limitExceeded('Too many logins at once.', 2000)
}
