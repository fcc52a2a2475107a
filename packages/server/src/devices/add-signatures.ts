/**
 * Addition of checked signatures (signatures.ts) to the keys of a user: which of several counts, which earlier ones it
 * replaces, and who learns of it (client-server API, "Cross-signing", "Key and signature security").
 */
import type { UserRef } from '../session.ts'
import type { KeySignature } from './port.ts'
import type { Audience } from './replace-keys.ts'

export type SignatureAddition = {
  readonly put: readonly KeySignature[]
  /**
   * The signer's other signatures on the same keys are deleted: a user has one user-signing key, so those by an
   * earlier one are void. On own keys each signing key has a signature of its own.
   */
  readonly replacesOthers: boolean
  /** If a signature is new. A signature on another user's key is visible to its signer alone. */
  readonly audience: Audience
}

/** The last of several signatures counts: per signing key on own keys, per signed key on another user's. */
export function decideSignatures(
  signer: UserRef,
  target: UserRef,
  signatures: readonly KeySignature[],
): SignatureAddition {
  const own = signer === target
  const nameOf = ({ keyId, signerKeyId }: KeySignature): string => (own ? `${keyId}\0${signerKeyId}` : keyId)
  return {
    put: [...new Map(signatures.map((signature) => [nameOf(signature), signature])).values()],
    replacesOthers: !own,
    audience: own ? 'everyone' : 'user',
  }
}
