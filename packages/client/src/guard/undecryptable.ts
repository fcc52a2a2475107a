/** "This could not be decrypted": what the ledger says of the key that a message, or an SDK's log line, names. */
import { isJsonObject, type JsonObject, materialOf } from '@latchkey/protocol'
import type { Verdict } from '../events.ts'
import { type Judge, verdictOf } from '../ledger/explain.ts'
import { FALLBACK_KEYS, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { findByHash, hashOf } from '../ledger/ledger.ts'
import { decodeOlmEvent } from '../olm/pre-key-message.ts'
import { parseObject } from '../server/answers.ts'
import type { View } from '../store/stored-state.ts'
import { guardedDevice } from './guarded-device.ts'
import { type Named, namedKey, namingOf } from './prekey-sightings.ts'
import type { Guarding } from './context.ts'
import { emit } from '../emit.ts'

/** 32 bytes in base64. Not everything that is so long in a log line is a key of this device's: the ledger knows. */
const KEY_CHARS = 43
/** Keys of one line that are looked up. */
const MAX_KEYS = 100

/**
 * @param report the to-device event (object or JSON), a public key, or a log line of the SDK with the key in it
 */
export async function reportUndecryptable(
  { settings, state }: Pick<Guarding, 'settings' | 'state'>,
  report: unknown,
): Promise<Verdict> {
  const event = isJsonObject(report) ? report : typeof report === 'string' ? parseObject(report) : undefined
  const ownKey = await state.read((view) => guardedDevice(view).curve25519)
  // A message to a former identity of the device is explained too.
  const named = event && (await (namedKey(event, ownKey) ?? namedKey(event, undefined)))
  const hashes = named ? [named.hash] : event || typeof report !== 'string' ? [] : await hashesIn(report)
  const found =
    hashes.length > 0 ? await state.read((view) => judgeKeys(view, hashes, named)) : keyless(event)
  emit(settings.onEvent, settings.now(), 'undecryptable', {
    sender: named?.sender ?? senderOf(event),
    verdict: found.verdict,
    ...(found.id !== undefined && { key: found.id }),
  })
  return found.verdict
}

type Judged = { readonly verdict: Verdict; readonly id?: string }

function hashesIn(text: string): Promise<string[]> {
  const words = text.split(/[^A-Za-z0-9+/_-]+/).filter(({ length }) => length === KEY_CHARS)
  return Promise.all(words.slice(0, MAX_KEYS).map((word) => hashOf(materialOf(word))))
}

function keyless(event: JsonObject | undefined): Judged {
  const olm = decodeOlmEvent(event)
  const isNormal = olm !== undefined && Object.values(olm.ciphertexts).some(({ type }) => type === 1)
  return { verdict: isNormal ? 'no_session' : 'malformed' }
}

function judgeKeys(view: View, hashes: readonly string[], named: Named | undefined): Judged {
  for (const hash of hashes) {
    const fallback = findByHash(view, FALLBACK_KEYS, hash)
    if (fallback !== undefined) return { verdict: judge(view, 'fallback', fallback[1]), id: fallback[0] }
    const [id, record] = findByHash(view, ONE_TIME_KEYS, hash) ?? []
    if (id === undefined || record === undefined) continue
    const naming = namingOf(view, hash)
    const isSecond = naming !== undefined && named !== undefined && naming.session !== named.session
    return { verdict: isSecond ? 'named_twice' : judge(view, 'one-time', record), id }
  }
  return { verdict: 'never_ours' }
}

/** The guard counts a key as used when a message names it, and never learns whether that could be decrypted. */
export const judge: Judge = (view, kind, record) => {
  if (kind === 'one-time' && namingOf(view, record.hash)?.other !== undefined) return 'named_twice'
  return record.state === 'used' ? 'named' : verdictOf(kind, record)
}

function senderOf(event: { readonly [key: string]: unknown } | undefined): string {
  return typeof event?.['sender'] === 'string' ? event['sender'] : 'somebody'
}
