/** The member `auth` of a request (client-server API, "User-Interactive Authentication API"), decoded. */
import { isJsonObject, type JsonObject } from '@latchkey/protocol'
import { badJson, missingParam } from '../matrix-error.ts'
import { requireUserIdentifier } from './user-name.ts'

export type AuthData = {
  readonly session: string | undefined
  /** The stage that the client attempts. */
  readonly type: string | undefined
  readonly password: string | undefined
  readonly token: string | undefined
  /** @throws {MatrixError} 400 without a user, or with one of another kind. */
  readonly user: () => string
}

/** @throws {MatrixError} 400 M_BAD_JSON for members of another type. */
export function decodeAuth(body: JsonObject): AuthData {
  const auth = Object.hasOwn(body, 'auth') ? (body['auth'] ?? {}) : {}
  if (!isJsonObject(auth)) throw badJson('auth: expected an object.')
  const text = (member: string): string | undefined => optionalString(auth, member)
  return {
    session: text('session'),
    type: text('type'),
    password: text('password'),
    token: text('token'),
    user: () => userOf(auth),
  }
}

/** `identifier`, or the member `user` that it replaced (deprecated since r0.4). */
function userOf(auth: JsonObject): string {
  const identifier = auth['identifier'] ?? undefined
  if (identifier !== undefined && !isJsonObject(identifier))
    throw badJson('auth.identifier: expected an object.')
  if (identifier !== undefined) requireUserIdentifier(optionalString(identifier, 'type'))
  const named = identifier === undefined ? optionalString(auth, 'user') : optionalString(identifier, 'user')
  if (named === undefined) {
    throw missingParam('auth: expected "identifier" with the type "m.id.user" and a "user".')
  }
  return named
}

function optionalString(auth: JsonObject, member: string): string | undefined {
  const value = Object.hasOwn(auth, member) ? auth[member] : undefined
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'string') throw badJson(`auth.${member}: expected a string.`)
  return value
}
