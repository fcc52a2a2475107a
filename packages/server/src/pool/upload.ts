/**
 * Rules 2 and 3 of an upload: material, then ID. The outcome table of key-pool.md ("Upload"), row by row.
 * Sources: Matrix client-server API /keys/upload; matrix-spec#1124 (a retried upload must not bring issued keys back).
 */
import {
  compareCodePoints,
  keyName,
  type KeyId,
  type KeyMaterial,
  type KeyName,
  type UploadOutcome,
} from '@latchkey/protocol'
import type { KeyState, UploadedKey } from './port.ts'

/** What the pool remembers, looked up inside the upload's transaction. */
export interface PoolMemory {
  /** The row with this material that counts: withdrawn rows do not, their material may be offered anew. */
  byMaterial(
    material: KeyMaterial,
  ): { readonly state: Exclude<KeyState, 'withdrawn'>; readonly keyId: KeyId } | undefined
  /** The available key with this ID, as stored. */
  availableById(keyId: KeyId): { readonly material: KeyMaterial; readonly json: string } | undefined
  /** Whether an issued key had this ID. */
  issuedUnder(keyId: KeyId): boolean
}

/** An uploaded ID that is available with other material. */
export type Conflict = {
  readonly uploaded: UploadedKey
  readonly stored: { readonly material: KeyMaterial; readonly json: string }
}

export type UploadDecision<Key extends UploadedKey = UploadedKey> = {
  /** The keys to append to the log, in the order of the log: by key ID, code points. */
  readonly store: readonly Key[]
  readonly outcomes: ReadonlyMap<KeyName, UploadOutcome>
  readonly storedAs: ReadonlyMap<KeyName, KeyName>
  readonly conflicts: readonly Conflict[]
}

/** Decides what becomes of the one-time keys of one upload for one pool. */
export function decideUpload<Key extends UploadedKey>(
  keys: readonly Key[],
  memory: PoolMemory,
): UploadDecision<Key> {
  const store: Key[] = []
  const outcomes = new Map<KeyName, UploadOutcome>()
  const storedAs = new Map<KeyName, KeyName>()
  const conflicts: Conflict[] = []
  const inThisRequest = new Map<KeyMaterial, KeyId>()
  for (const key of keys.toSorted((a, b) => compareCodePoints(a.keyId, b.keyId))) {
    const name = keyName(key.algorithm, key.keyId)
    const keptAs = (keyId: KeyId): void => {
      outcomes.set(name, 'already_stored')
      if (keyId !== key.keyId) storedAs.set(name, keyName(key.algorithm, keyId))
    }
    const earlier = inThisRequest.get(key.material)
    const known = memory.byMaterial(key.material)
    if (earlier !== undefined) keptAs(earlier)
    else if (known?.state === 'available') keptAs(known.keyId)
    else if (known?.state === 'issued') outcomes.set(name, 'already_issued')
    else if (known !== undefined) outcomes.set(name, 'already_removed')
    else {
      const stored = memory.availableById(key.keyId)
      if (stored === undefined) {
        store.push(key)
        inThisRequest.set(key.material, key.keyId)
        outcomes.set(name, memory.issuedUnder(key.keyId) ? 'id_reused' : 'stored')
      } else conflicts.push({ uploaded: key, stored })
    }
  }
  return { store, outcomes, storedAs, conflicts }
}
