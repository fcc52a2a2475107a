/**
 * Rules 2 and 3 of an upload: material, then ID. The outcome table of key-pool.md ("Upload"), row by row.
 * Sources: Matrix client-server API /keys/upload; matrix-spec#1124 (a retried upload must not bring issued keys back).
 */
import { compareCodePoints, keyName, type KeyId, type KeyName, type UploadOutcome } from '@latchkey/protocol'
import type { HashedKey, KeyState, MaterialHash, UploadedKey } from './key.ts'
import type { NamedKey } from './log-key.ts'

/** What a pool remembers. */
export interface PoolMemory {
  /** The key with this material. Withdrawn keys do not count: their material may be offered again. */
  byMaterial(
    hash: MaterialHash,
  ): { readonly state: Exclude<KeyState, 'withdrawn'>; readonly keyId: KeyId } | undefined
  /** The available key with this ID. */
  availableById(keyId: KeyId): NamedKey | undefined
  /** How many keys were added after the last issued key with this ID; undefined when no issued key had it. */
  addedSinceIssued(keyId: KeyId): number | undefined
}

/** An uploaded ID that is available with other material. */
export type Conflict = { readonly uploaded: UploadedKey; readonly stored: NamedKey }

export type Outcomes = {
  /** The keys to append to the log, in the order of the log: by key ID, code points. */
  readonly store: readonly HashedKey[]
  readonly outcomes: ReadonlyMap<KeyName, UploadOutcome>
  readonly storedAs: ReadonlyMap<KeyName, KeyName>
  readonly conflicts: readonly Conflict[]
}

/**
 * How many keys may have been added after an issued key whose ID is used again, for the outcome `id_reused`: a day's
 * keys at most (docs/decisions). The outcome informs; what is stored does not depend on it.
 */
export const ID_REUSE_LOOKBACK = 5_000

/**
 * Decides the outcome of each one-time key of one upload for one pool.
 *
 * @param isTaken whether a key has a place elsewhere (one-place.ts)
 */
export function decideOutcomes(
  keys: readonly HashedKey[],
  memory: PoolMemory,
  isTaken: (key: HashedKey) => boolean,
): Outcomes {
  const store: HashedKey[] = []
  const outcomes = new Map<KeyName, UploadOutcome>()
  const storedAs = new Map<KeyName, KeyName>()
  const conflicts: Conflict[] = []
  const inThisRequest = new Map<MaterialHash, KeyId>()
  for (const key of keys.toSorted((a, b) => compareCodePoints(a.keyId, b.keyId))) {
    const name = keyName(key.algorithm, key.keyId)
    const keptAs = (keyId: KeyId): void => {
      outcomes.set(name, 'already_stored')
      if (keyId !== key.keyId) storedAs.set(name, keyName(key.algorithm, keyId))
    }
    const earlier = inThisRequest.get(key.hash)
    const known = memory.byMaterial(key.hash)
    if (earlier !== undefined) keptAs(earlier)
    else if (known?.state === 'available') keptAs(known.keyId)
    else if (known?.state === 'issued') outcomes.set(name, 'already_issued')
    else if (known !== undefined) outcomes.set(name, 'already_removed')
    else if (isTaken(key)) outcomes.set(name, 'in_use_elsewhere')
    else {
      const stored = memory.availableById(key.keyId)
      if (stored === undefined) {
        store.push(key)
        inThisRequest.set(key.hash, key.keyId)
        outcomes.set(name, isReused(memory.addedSinceIssued(key.keyId)) ? 'id_reused' : 'stored')
      } else conflicts.push({ uploaded: key, stored })
    }
  }
  return { store, outcomes, storedAs, conflicts }
}

function isReused(addedSince: number | undefined): boolean {
  return addedSince !== undefined && addedSince < ID_REUSE_LOOKBACK
}
