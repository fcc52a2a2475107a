/** Passwords that an account may have. */
import { utf8Length } from '@latchkey/protocol'
import { invalidParam, MatrixError } from '../matrix-error.ts'

/** More than anyone types. Every byte is hashed, so the length needs a bound. */
export const MAX_PASSWORD_BYTES = 512

/** @throws {MatrixError} 400 M_WEAK_PASSWORD when too short, M_INVALID_PARAM when too long. */
export function requireGoodPassword(password: string, minLength: number): void {
  if (utf8Length(password) > MAX_PASSWORD_BYTES) {
    throw invalidParam(`The password is too long: at most ${MAX_PASSWORD_BYTES} bytes are accepted.`)
  }
  if (Array.from(password).length < minLength) {
    throw new MatrixError(
      400,
      'M_WEAK_PASSWORD',
      `The password is too short: at least ${minLength} characters.`,
    )
  }
}
