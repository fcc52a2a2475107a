/**
 * Replacement of a user's cross-signing keys (client-server API, "Cross-signing"): which keys change, which signatures
 * are deleted, and who learns of it. The form of the keys is checked before (cross-signing.ts).
 */
import { forbidden } from '../matrix-error.ts'
import { requireFreePublicKeys } from './name-space.ts'
import type { CrossSigningKey } from './port.ts'

/** Who learns of a change: everyone who tracks the user, or the user who made it alone. */
export type Audience = 'everyone' | 'user'

export type ReplacementFacts = {
  /** The user's cross-signing keys. */
  readonly stored: readonly CrossSigningKey[]
  /** The user's devices, or those of them that an uploaded key names. */
  readonly deviceIds: ReadonlySet<string>
}

export type Replacement = {
  readonly put: readonly CrossSigningKey[]
  /** Public keys whose signatures are deleted: those on the key, and those by it on the user's own keys. */
  readonly replaced: readonly string[]
  /** Undefined: nothing changes. */
  readonly audience: Audience | undefined
}

/**
 * A key that is stored already, unchanged, counts as no change: the same request again repairs a lost answer.
 *
 * @param seenMaster the public master key on which the decision to allow the request was based: of two first uploads at
 *   the same time only one is the first
 * @throws {MatrixError} 403 M_FORBIDDEN when the master key is another one by now, or a public key is a device ID.
 */
export function decideReplacement(
  { stored, deviceIds }: ReplacementFacts,
  uploaded: readonly CrossSigningKey[],
  seenMaster: string | undefined,
): Replacement {
  if (stored.find((key) => key.usage === 'master')?.publicKey !== seenMaster) {
    throw forbidden(
      'Another request changed the cross-signing keys at the same time: read them and try again.',
    )
  }
  requireFreePublicKeys(uploaded, deviceIds)
  const storedAs = new Map(stored.map((key) => [key.usage, key]))
  const put = uploaded.filter((key) => storedAs.get(key.usage)?.json !== key.json)
  return {
    put,
    replaced: put.flatMap(({ usage, publicKey }) => {
      const old = storedAs.get(usage)?.publicKey
      return old === undefined || old === publicKey ? [] : [old]
    }),
    audience: audienceOf(put),
  }
}

/** Others may see master and self-signing keys. The user-signing key is visible to its user alone. */
function audienceOf(changed: readonly CrossSigningKey[]): Audience | undefined {
  if (changed.length === 0) return undefined
  return changed.some((key) => key.usage !== 'user_signing') ? 'everyone' : 'user'
}
