/** Explains why a message could not be decrypted: what the ledger knows of a key, by its public half or its name. */
import type { KeyName } from '@latchkey/protocol'
import type { Verdict } from '../events.ts'
import type { View } from '../store/stored-state.ts'
import { FALLBACK_KEYS, type KeyRecord, type KeyState, nameOf, ONE_TIME_KEYS } from './key-record.ts'
import { hashOf } from './ledger.ts'

/** What the ledger knows of one key. Times in ms. */
export type Explanation = {
  readonly name: KeyName
  readonly kind: 'one-time' | 'fallback'
  readonly state: KeyState
  readonly since: number
  readonly publishedAt?: number
  readonly issuedAt?: number
  readonly detail?: string
  readonly verdict: Verdict
  /** The same in one sentence. */
  readonly text: string
}

/** Determines the verdict on a key; a ledger's owner may know more than the record. */
export type VerdictFunction = (view: View, kind: Explanation['kind'], record: KeyRecord) => Verdict

/**
 * Every ledger key that matches a public key, a key ID or a full name: usually one, none for unknown keys, several when
 * an ID was reused.
 */
export async function explain(
  read: <T>(read: (view: View) => T) => Promise<T>,
  keyOrId: string,
  verdict: VerdictFunction = (_view, kind, record) => verdictOf(kind, record),
): Promise<Explanation[]> {
  const hash = await hashOf(keyOrId)
  return read((view) => {
    const found: Explanation[] = []
    for (const [kind, records] of [
      ['one-time', view.all(ONE_TIME_KEYS)],
      ['fallback', view.all(FALLBACK_KEYS)],
    ] as const) {
      for (const [id, record] of records) {
        const name = nameOf(id)
        const isIt = record.hash === hash || name === keyOrId || name.slice(name.indexOf(':') + 1) === keyOrId
        if (isIt) found.push(explanationOf(name, kind, record, verdict(view, kind, record)))
      }
    }
    return found
  })
}

/** The meaning of a key's state for an undecryptable message that names it. */
export function verdictOf(kind: Explanation['kind'], record: KeyRecord): Verdict {
  if (record.adopted === true && (record.state === 'available' || record.state === 'issued')) return 'adopted'
  switch (record.state) {
    case 'used':
      return 'already_used'
    case 'withdrawn':
    case 'removed':
    case 'expired':
    case 'lost':
      return kind === 'fallback' && record.state === 'expired' ? 'fallback_replaced' : record.state
    case 'unsent':
      return 'unknown_key'
    case 'uploading':
    case 'available':
    case 'issued':
      return 'private_key_held'
  }
}

const MEANING: Readonly<Record<Verdict, string>> = {
  unknown_key: 'this device has no record of it',
  already_used: 'a message was already decrypted with it',
  seen_once:
    'one session used it; if that failed, its message is repeated, damaged or forged, or the private half is lost',
  seen_twice: 'two sessions used it',
  withdrawn: 'it was withdrawn before it was issued',
  removed: 'the server removed it',
  expired: 'its private half was dropped after its time, or to free a slot',
  lost: 'its private half is lost: the store was rolled back, or its ID was reused',
  adopted: 'it was published before there was a ledger; its private half is unknown',
  fallback_replaced: 'it is a former fallback key whose private half was dropped after the grace time',
  private_key_held: 'its private half should be available',
  no_session: 'the message names no key and matches no session',
  malformed: 'it is not a valid Olm message, or names no key',
}

function explanationOf(
  name: KeyName,
  kind: Explanation['kind'],
  record: KeyRecord,
  verdict: Verdict,
): Explanation {
  const { state, since, publishedAt, issuedAt, detail } = record
  const sinceText = new Date(since).toISOString()
  const because = detail === undefined ? '' : ` (${detail})`
  return {
    name,
    kind,
    state,
    since,
    ...(publishedAt !== undefined && { publishedAt }),
    ...(issuedAt !== undefined && { issuedAt }),
    ...(detail !== undefined && { detail }),
    verdict,
    text: `${name}, a ${kind} key, has been ${state} since ${sinceText}: ${MEANING[verdict]}${because}.`,
  }
}
