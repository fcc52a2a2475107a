/**
 * User names: the localpart that a new account may have, and the account that a login means.
 * Source: Matrix specification, appendices, "User identifiers"; login: client-server API, "Matrix user ID".
 */
import { randomBytes } from 'node:crypto'
import { MAX_USER_ID_BYTES, parseUserId, type UserId, utf8Length } from '@latchkey/protocol'
import { invalidParam, MatrixError, missingParam, quoted } from '../matrix-error.ts'

/** The grammar before lower-casing. It has ASCII letters only, so that no other letter folds into it. */
const LOCALPART = /^[a-zA-Z0-9._=/+-]+$/

/**
 * The user ID of a new account.
 *
 * @throws {MatrixError} 400 M_INVALID_USERNAME
 * @example newUserId('Alice', 'example.org') // '@alice:example.org'
 */
export function newUserId(localpart: string, serverName: string): UserId {
  if (!LOCALPART.test(localpart)) {
    throw invalidUserName(
      `The user name ${quoted(localpart)} cannot be used; expected letters, digits and any of . _ = / + -`,
    )
  }
  const userId = `@${localpart.toLowerCase()}:${serverName}`
  if (utf8Length(userId) > MAX_USER_ID_BYTES) {
    throw invalidUserName(`The user name is too long: its whole user ID may have ${MAX_USER_ID_BYTES} bytes.`)
  }
  return userId as UserId
}

/** The account that a localpart or a whole user ID means, in any case; undefined when this server cannot have it. */
export function meantUserId(user: string, serverName: string): UserId | undefined {
  const parsed = parseUserId(user)
  if (parsed !== undefined && parsed.serverName !== serverName) return undefined
  const localpart = parsed?.localpart ?? user
  if (!LOCALPART.test(localpart) || utf8Length(localpart) > MAX_USER_ID_BYTES) return undefined
  return `@${localpart.toLowerCase()}:${serverName}` as UserId
}

const USER_IDENTIFIER = 'm.id.user'

/**
 * Refuses identifiers that name a user by something else than the user name (client-server API, "Identifier types").
 *
 * @throws {MatrixError} 400
 */
export function requireUserIdentifier(type: string | undefined): void {
  if (type === USER_IDENTIFIER) return
  if (type === undefined)
    throw missingParam(`identifier lacks the member "type"; expected "${USER_IDENTIFIER}".`)
  throw invalidParam(`The identifier type ${quoted(type)} is not supported; expected "${USER_IDENTIFIER}".`)
}

/** A localpart for a user who does not choose one. */
export function randomLocalpart(): string {
  return `u${randomBytes(8).toString('hex')}`
}

function invalidUserName(message: string): MatrixError {
  return new MatrixError(400, 'M_INVALID_USERNAME', message)
}
