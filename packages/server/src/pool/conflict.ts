/**
 * Conflicts: an uploaded key ID is available with other material (key-pool.md "Conflict", MSC4420).
 * `reject` answers 400 in the text that matrix-rust-sdk parses. `heal` answers the same the first time; a client that
 * sends the same materials again between 2 s and an hour later has lost its keys, and its pools are healed (heal.ts).
 */
import { hash } from 'node:crypto'
import { CONFLICTS, keyName } from '@latchkey/protocol'
import { MatrixError } from '../matrix-error.ts'
import type { UploadedKey } from './key.ts'
import type { Conflict } from './outcomes.ts'

const HEAL_AFTER_MS = 2_000
/** How long a refused upload is remembered. */
export const HEAL_WITHIN_MS = 60 * 60 * 1000

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

/** A conflict that was answered 400: what was offered, and when (milliseconds since 1970). */
export type RefusedTry = { readonly materials: string; readonly ts: number }

/**
 * Classifies a conflicting upload by the last refused one of its device: the `second` try of a client that lost its
 * keys; a `first` one, to be remembered; or a `repeat` of the first, too soon after it to be a deliberate retry.
 */
export function classifyTry(
  remembered: RefusedTry | undefined,
  { materials, ts }: RefusedTry,
): 'first' | 'repeat' | 'second' {
  const age = remembered?.materials === materials ? ts - remembered.ts : Number.POSITIVE_INFINITY
  if (age > HEAL_WITHIN_MS) return 'first'
  return age >= HEAL_AFTER_MS ? 'second' : 'repeat'
}

/** An upload as `classifyTry` recognizes it: by its materials, in any order. */
export function tryOf(keys: readonly UploadedKey[], now: number): RefusedTry {
  const names = keys.map((key) => `${key.algorithm}:${key.material}`)
  return { materials: hash('sha256', names.sort().join(' '), 'base64url'), ts: now }
}
