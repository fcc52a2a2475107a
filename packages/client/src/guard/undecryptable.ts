/** "This could not be decrypted": what the ledger says of the key that a message, or an SDK's log line, names. */
import { isJsonObject, materialOf } from '@latchkey/protocol'
import type { Verdict } from '../events.ts'
import { verdictOf } from '../ledger/explain.ts'
import { FALLBACK_KEYS, type KeyRecord, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { findByHash, hashOf } from '../ledger/ledger.ts'
import { parseObject } from '../server/answers.ts'
import type { View } from '../store/stored-state.ts'
import { guardedDevice } from './guarded-device.ts'
import { type Named, namedKey, namingOf } from './namings.ts'
import type { Guarding } from './guarding.ts'
import { emit } from '../emit.ts'

/** A public key in a log line, with the prefix that vodozemac prints, or standing alone. */
const KEY_IN_TEXT =
  /curve25519:([A-Za-z0-9+/_-]{43})|(?:^|[^A-Za-z0-9+/_-])([A-Za-z0-9+/_-]{43})(?![A-Za-z0-9+/_-])/

/**
 * @param report the to-device event (object or JSON), a public key, or a log line of the SDK with the key in it
 */
export async function reportUndecryptable(
  { settings, state }: Pick<Guarding, 'settings' | 'state'>,
  report: unknown,
): Promise<Verdict> {
  const event = isJsonObject(report) ? report : typeof report === 'string' ? parseObject(report) : undefined
  const ownKey = await state.read((view) => guardedDevice(view).curve25519)
  const named = event === undefined ? undefined : await namedKey(event, ownKey)
  const [, prefixed, alone] = (typeof report === 'string' && KEY_IN_TEXT.exec(report)) || []
  const key = prefixed ?? alone
  const hash = named?.hash ?? (key === undefined ? undefined : await hashOf(materialOf(key)))
  const sender = named?.sender ?? senderOf(event)
  const found = await state.read((view) => (hash === undefined ? UNKNOWN : judgeKey(view, hash, named)))
  emit(settings.onEvent, settings.now(), 'undecryptable', {
    sender,
    verdict: found.verdict,
    ...(found.id !== undefined && { key: found.id }),
  })
  return found.verdict
}

type Judged = { readonly verdict: Verdict; readonly id?: string }

const UNKNOWN: Judged = { verdict: 'never_ours' }

function judgeKey(view: View, hash: string, named: Named | undefined): Judged {
  const fallback = findByHash(view, FALLBACK_KEYS, hash)
  if (fallback !== undefined) return { verdict: verdictOf('fallback', fallback[1]), id: fallback[0] }
  const oneTime = findByHash(view, ONE_TIME_KEYS, hash)
  if (oneTime === undefined) return UNKNOWN
  const [id, record] = oneTime
  const naming = namingOf(view, hash)
  const isSecond = naming !== undefined && named !== undefined && naming.session !== named.session
  if (isSecond || naming?.other !== undefined) return { verdict: 'named_twice', id }
  return { verdict: verdictOf('one-time', beforeItsMessage(record)), id }
}

/**
 * The guard counts a key as used when a message names it, before the SDK has tried. If that is the message that failed,
 * the key had been issued, and nothing more is known against it.
 */
function beforeItsMessage(record: KeyRecord): KeyRecord {
  return record.state === 'used' ? { ...record, state: 'issued' } : record
}

function senderOf(event: { readonly [key: string]: unknown } | undefined): string {
  return typeof event?.['sender'] === 'string' ? event['sender'] : 'somebody'
}
