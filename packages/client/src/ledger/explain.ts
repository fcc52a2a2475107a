/** "Why could this message not be decrypted?": what the ledger knows of one key, by its public half or its name. */
import type { KeyName } from '@latchkey/protocol'
import type { Verdict } from '../events.ts'
import type { View } from '../store/stored-state.ts'
import { FALLBACK_KEYS, type KeyRecord, type KeyState, nameOf, ONE_TIME_KEYS } from './key-record.ts'
import { hashOf } from './ledger.ts'

/** One key of the ledger, readable. Times in ms. */
export type Explanation = {
  readonly name: KeyName
  readonly kind: 'one-time' | 'fallback'
  readonly state: KeyState
  readonly since: number
  readonly publishedAt?: number
  readonly issuedAt?: number
  readonly cause?: string
  readonly verdict: Verdict
  /** The same in one sentence. */
  readonly text: string
}

/** What is to be said of a key; the owner of a ledger may know more of it than its record. */
export type VerdictFunction = (view: View, kind: Explanation['kind'], record: KeyRecord) => Verdict

/**
 * Every key of the ledger that a public key, a key ID or a whole name stands for: mostly one, none for what was never
 * ours, several when an ID was used anew.
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

/** What a key's state means for a message that names it and could not be decrypted. */
export function verdictOf(kind: Explanation['kind'], record: KeyRecord): Verdict {
  if (record.adopted === true && (record.state === 'available' || record.state === 'issued')) return 'adopted'
  switch (record.state) {
    case 'used':
      return 'used_before'
    case 'withdrawn':
    case 'removed':
    case 'expired':
    case 'lost':
      return kind === 'fallback' && record.state === 'expired' ? 'fallback_replaced' : record.state
    case 'unsent':
      return 'never_ours'
    case 'uploading':
    case 'available':
    case 'issued':
      return 'private_key_held'
  }
}

const MEANING: Readonly<Record<Verdict, string>> = {
  never_ours: 'this device never published it',
  used_before: 'a message was decrypted with it before',
  named:
    'one session named it; if that could not be decrypted, it came twice, is damaged or forged, or the private half is gone',
  named_twice: 'two sessions named it',
  withdrawn: 'it was withdrawn before anybody had it',
  removed: 'the server removed it',
  expired: 'its private half was given up',
  lost: 'its private half is gone: the store went back, or its ID was used anew',
  adopted: 'it was published before there was a ledger; nothing is known of its private half',
  fallback_replaced: 'it is a former fallback key whose private half was dropped after its time',
  private_key_held: 'its private half should be there',
  no_session: 'the message names no key, and no session that it could belong to is there',
  malformed: 'it is no Olm message, or names no key',
}

function explanationOf(
  name: KeyName,
  kind: Explanation['kind'],
  record: KeyRecord,
  verdict: Verdict,
): Explanation {
  const { state, since, publishedAt, issuedAt, cause } = record
  const because = cause === undefined ? '' : ` (${cause})`
  return {
    name,
    kind,
    state,
    since,
    ...(publishedAt !== undefined && { publishedAt }),
    ...(issuedAt !== undefined && { issuedAt }),
    ...(cause !== undefined && { cause }),
    verdict,
    text: `${name}, a ${kind} key, is ${state} since ${new Date(since).toISOString()}: ${MEANING[verdict]}${because}.`,
  }
}
