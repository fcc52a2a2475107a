/**
 * What happens when an uploaded key ID is available with other material (key-pool.md "Conflict", MSC4420).
 * `reject` answers 400 in the text that matrix-rust-sdk parses. `heal` answers the same the first time; a client that
 * sends the same materials again between 2 s and an hour later has forgotten its keys, so the pool is purged for it.
 */
import { hash } from 'node:crypto'
import { CONFLICTS, keyName } from '@latchkey/protocol'
import { LRUCache } from 'lru-cache'
import { MatrixError } from '../matrix-error.ts'
import type { DeviceRef } from '../session.ts'
import type { UploadedKey } from './port.ts'
import type { Conflict } from './upload.ts'

const HEAL_AFTER_MS = 2_000
const HEAL_WITHIN_MS = 60 * 60 * 1000

/** The 400 of a conflict. Its text is a de-facto interface: `One time key X already exists. Old key: J; new key: J`. */
export function conflictError(conflicts: readonly Conflict[]): MatrixError {
  const [first] = conflicts
  if (first === undefined) throw new Error('a conflict error needs a conflict')
  const { algorithm, keyId, json } = first.uploaded
  const data = conflicts.map(({ uploaded, stored }) => [
    keyName(uploaded.algorithm, uploaded.keyId),
    { stored_key: stored.material, uploaded_key: uploaded.material },
  ])
  return new MatrixError(
    400,
    'io.github.johennes.msc4420.M_DUPLICATE_ONE_TIME_KEY',
    `One time key ${algorithm}:${keyId} already exists. Old key: ${first.stored.json}; new key: ${json}`,
    { [CONFLICTS]: Object.fromEntries(data) },
  )
}

/** Devices whose last conflict is remembered, of those that conflict at all. */
const MAX_REMEMBERED = 10_000

/**
 * The conflicts that were answered 400 lately, by device. Lost with the process, which costs a client one more try;
 * a request that is refused stores nothing.
 */
export class ConflictMemory {
  readonly #remembered = new LRUCache<DeviceRef, { readonly materials: string; readonly ts: number }>({
    max: MAX_REMEMBERED,
  })

  /** Is this the second try of a client that forgot its keys? Remembers the first one if not. */
  isSecondTry(device: DeviceRef, keys: readonly UploadedKey[], now: number): boolean {
    const materials = sha256Text(
      keys
        .map((key) => `${key.algorithm}:${key.material}`)
        .sort()
        .join(' '),
    )
    const first = this.#remembered.get(device)
    const age = first?.materials === materials ? now - first.ts : Number.POSITIVE_INFINITY
    if (age >= HEAL_AFTER_MS && age <= HEAL_WITHIN_MS) {
      this.#remembered.delete(device)
      return true
    }
    if (age > HEAL_WITHIN_MS) this.#remembered.set(device, { materials, ts: now })
    return false
  }
}

function sha256Text(text: string): string {
  return hash('sha256', text, 'base64url')
}
