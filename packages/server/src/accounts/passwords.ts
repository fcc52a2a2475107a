/**
 * Passwords as argon2id hashes (RFC 9106, in the PHC text form), made by node:crypto off the main thread.
 * Each takes 19 MiB and about 30 ms, so only a few run at once and few wait.
 */
import { argon2, randomBytes, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import { limitExceeded } from '../matrix-error.ts'

const argon2Async = promisify(argon2)

/** OWASP's second recommendation: 19 MiB, two passes, one lane. */
const COST = { memory: 19_456, passes: 2, parallelism: 1, tagLength: 32 } as const
const RUNNING = 2
const WAITING = 200

export class Passwords {
  #running = 0
  /** Calls of known clients, which go first, and others: a flood of strangers fills only the second list. */
  readonly #waiting = { known: new Array<() => void>(), others: new Array<() => void>() }

  /** @throws {MatrixError} 429 when too many wait. */
  async hash(password: string): Promise<string> {
    const salt = randomBytes(16)
    const tag = await this.#derive(password, salt)
    const { memory, passes, parallelism } = COST
    return `$argon2id$v=19$m=${memory},t=${passes},p=${parallelism}$${base64(salt)}$${base64(tag)}`
  }

  /**
   * @param isKnown puts the call ahead of those of clients that are not known
   * @returns whether a password belongs to a hash. Takes as long for a missing account, so that the two cannot be
   *   distinguished.
   */
  async verify(password: string, stored: string | undefined, isKnown = true): Promise<boolean> {
    const [, salt, tag] = /^\$argon2id\$v=19\$m=19456,t=2,p=1\$([^$]+)\$([^$]+)$/.exec(stored ?? '') ?? []
    const derived = await this.#derive(
      password,
      salt === undefined ? randomBytes(16) : Buffer.from(salt, 'base64'),
      isKnown,
    )
    return tag !== undefined && timingSafeEqual(derived, Buffer.from(tag, 'base64'))
  }

  async #derive(password: string, salt: Buffer, isKnown = false): Promise<Buffer> {
    await this.#enter(isKnown ? this.#waiting.known : this.#waiting.others)
    try {
      return await argon2Async('argon2id', { message: password, nonce: salt, ...COST })
    } finally {
      this.#leave()
    }
  }

  async #enter(waiting: (() => void)[]): Promise<void> {
    if (this.#running < RUNNING) {
      this.#running++
      return
    }
    if (waiting.length >= WAITING) throw limitExceeded('Too many logins at once.', 2000)
    await new Promise<void>((resolve) => waiting.push(resolve))
  }

  /** Passes the place to the known client that has waited longest, or else to another. */
  #leave(): void {
    const next = this.#waiting.known.shift() ?? this.#waiting.others.shift()
    if (next === undefined) this.#running--
    else next()
  }
}

function base64(bytes: Buffer): string {
  return bytes.toString('base64').replaceAll('=', '')
}
