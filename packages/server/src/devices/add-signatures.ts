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

/**
 * Names that exist when the signatures are stored, of those in the request: device IDs and cross-signing public keys.
 * The signatures were checked before, and a device may have been removed since.
 */
export type SignatureFacts = {
  readonly ofTarget: ReadonlySet<string>
  readonly ofSigner: ReadonlySet<string>
}

/**
 * The last of several signatures counts: per signing key on own keys, per signed key on another user's. One on or by a
 * key that does not exist any more is not stored, because nothing would delete it (issue 11, B4).
 */
export function decideSignatures(
  signer: UserRef,
  target: UserRef,
  signatures: readonly KeySignature[],
  { ofTarget, ofSigner }: SignatureFacts,
): SignatureAddition {
  const own = signer === target
  const nameOf = ({ keyId, signerKeyId }: KeySignature): string => (own ? `${keyId}\0${signerKeyId}` : keyId)
  const existing = signatures.filter(
    (signature) => ofTarget.has(signature.keyId) && ofSigner.has(signerName(signature)),
  )
  return {
    put: [...new Map(existing.map((signature) => [nameOf(signature), signature])).values()],
    replacesOthers: !own,
    audience: own ? 'everyone' : 'user',
  }
}

/** The device ID or public key in the name of a signing key. */
export function signerName({ signerKeyId }: Pick<KeySignature, 'signerKeyId'>): string {
  return signerKeyId.slice(signerKeyId.indexOf(':') + 1)
}
