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

/** A conflict that was answered 400: what was offered, and when. */
export type RefusedTry = { readonly materials: string; readonly ts: number }

/**
 * What a conflicting upload is, given the last refused one of its device: the `second` try of a client that forgot its
 * keys; a `first` one, to be remembered; or a `repeat` of the first, too soon after it to tell anything.
 */
export function judgeTry(
  remembered: RefusedTry | undefined,
  { materials, ts }: RefusedTry,
): 'first' | 'repeat' | 'second' {
  const age = remembered?.materials === materials ? ts - remembered.ts : Number.POSITIVE_INFINITY
  if (age > HEAL_WITHIN_MS) return 'first'
  return age >= HEAL_AFTER_MS ? 'second' : 'repeat'
}

/** An upload as `judgeTry` knows it again: by its materials, in whatever order. */
export function tryOf(keys: readonly UploadedKey[], now: number): RefusedTry {
  const names = keys.map((key) => `${key.algorithm}:${key.material}`)
  return { materials: sha256Text(names.sort().join(' ')), ts: now }
}

/**
 * The conflicts that were answered 400 lately, by device, for a store of one process. Lost with the process, which costs
 * a client one more try; a request that is refused stores nothing.
 */
export class ConflictMemory {
  readonly #remembered = new LRUCache<DeviceRef, RefusedTry>({ max: MAX_REMEMBERED })

  /** Is this the second try of a client that forgot its keys? Remembers the first one if not. */
  isSecondTry(device: DeviceRef, keys: readonly UploadedKey[], now: number): boolean {
    const attempt = tryOf(keys, now)
    const kind = judgeTry(this.#remembered.get(device), attempt)
    if (kind === 'second') this.#remembered.delete(device)
    if (kind === 'first') this.#remembered.set(device, attempt)
    return kind === 'second'
  }
}

function sha256Text(text: string): string {
  return hash('sha256', text, 'base64url')
}
