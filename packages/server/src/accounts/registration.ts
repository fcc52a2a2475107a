/** Whether an account may be created: its name, and the registration token that it spends (MSC3231). */
import { MatrixError } from '../matrix-error.ts'

export const TOKEN_NOT_USABLE = 'The registration token is used up, has expired or is unknown.'

/** A registration token as it is stored. */
export type StoredRegistrationToken = {
  readonly uses: number
  /** Undefined: no limit. */
  readonly usesAllowed: number | undefined
  /** Undefined: never. */
  readonly expiresTs: number | undefined
}

/** Whether a token can create one more account. Undefined: there is no such token. */
export function isUsable(token: StoredRegistrationToken | undefined, now: number): boolean {
  if (token === undefined) return false
  const { uses, usesAllowed, expiresTs } = token
  return (usesAllowed === undefined || uses < usesAllowed) && (expiresTs === undefined || expiresTs > now)
}

/**
 * @throws {MatrixError} 400 M_USER_IN_USE; 401 M_FORBIDDEN when a registration token was given that is not usable.
 */
export function requireRegistrable(
  facts: {
    readonly nameTaken: boolean
    /** Undefined: the account needs no token. */
    readonly token?: { readonly stored: StoredRegistrationToken | undefined }
  },
  now: number,
): void {
  if (facts.nameTaken) throw nameTaken()
  if (facts.token === undefined || isUsable(facts.token.stored, now)) return
  throw new MatrixError(401, 'M_FORBIDDEN', TOKEN_NOT_USABLE)
}

export function nameTaken(): MatrixError {
  return new MatrixError(400, 'M_USER_IN_USE', 'This user name is taken.')
}
