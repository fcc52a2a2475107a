/** Verdicts on undecryptable messages: what the ledger knows of the key that a message or a log line names. */
import { isJsonObject, type JsonObject, materialOf } from '@latchkey/protocol'
import type { Verdict } from '../events.ts'
import { type VerdictFunction, verdictOf } from '../ledger/explain.ts'
import { FALLBACK_KEYS, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { findByHash, hashOf } from '../ledger/ledger.ts'
import { decodeOlmEvent } from '../olm/pre-key-message.ts'
import { parseObject } from '../server/answers.ts'
import type { View } from '../store/stored-state.ts'
import { guardedDevice } from './guarded-device.ts'
import { type PreKeySighting, preKeySighting, sightingOf } from './prekey-sightings.ts'
import type { GuardContext } from './context.ts'
import { emit } from '../emit.ts'

/** Length of 32 bytes in base64. A log line may contain other words of this length; the ledger decides. */
const KEY_CHARS = 43
/** Keys looked up per log line. */
const MAX_KEYS = 100

/**
 * @param report the to-device event (object or JSON), a public key, or a log line of the SDK with the key in it
 */
export async function reportUndecryptable(
  { settings, state }: Pick<GuardContext, 'settings' | 'state'>,
  report: unknown,
): Promise<Verdict> {
  const event = isJsonObject(report) ? report : typeof report === 'string' ? parseObject(report) : undefined
  const ownKey = await state.read((view) => guardedDevice(view).curve25519)
  // Messages to a former identity of the device are explained too.
  const sighting = event && (await (preKeySighting(event, ownKey) ?? preKeySighting(event, undefined)))
  const hashes = sighting
    ? [sighting.hash]
    : event || typeof report !== 'string'
      ? []
      : await hashesIn(report)
  const found =
    hashes.length > 0 ? await state.read((view) => verdictOnKeys(view, hashes, sighting)) : keyless(event)
  emit(settings.onEvent, settings.now(), 'undecryptable', {
    sender: sighting?.sender ?? senderOf(event),
    verdict: found.verdict,
    ...(found.id !== undefined && { key: found.id }),
  })
  return found.verdict
}

type KeyVerdict = { readonly verdict: Verdict; readonly id?: string }

function hashesIn(text: string): Promise<string[]> {
  const words = text.split(/[^A-Za-z0-9+/_-]+/).filter(({ length }) => length === KEY_CHARS)
  return Promise.all(words.slice(0, MAX_KEYS).map((word) => hashOf(materialOf(word))))
}

function keyless(event: JsonObject | undefined): KeyVerdict {
  const olm = decodeOlmEvent(event)
  const isNormal = olm !== undefined && Object.values(olm.ciphertexts).some(({ type }) => type === 1)
  return { verdict: isNormal ? 'no_session' : 'malformed' }
}

function verdictOnKeys(
  view: View,
  hashes: readonly string[],
  sighting: PreKeySighting | undefined,
): KeyVerdict {
  for (const hash of hashes) {
    const fallback = findByHash(view, FALLBACK_KEYS, hash)
    if (fallback !== undefined)
      return { verdict: guardVerdict(view, 'fallback', fallback[1]), id: fallback[0] }
    const [id, record] = findByHash(view, ONE_TIME_KEYS, hash) ?? []
    if (id === undefined || record === undefined) continue
    const stored = sightingOf(view, hash)
    const isSecond = stored !== undefined && sighting !== undefined && stored.session !== sighting.session
    return { verdict: isSecond ? 'seen_twice' : guardVerdict(view, 'one-time', record), id }
  }
  return { verdict: 'unknown_key' }
}

/** The guard marks a key as used when a message names it; it cannot see whether that message was decrypted. */
export const guardVerdict: VerdictFunction = (view, kind, record) => {
  if (kind === 'one-time' && sightingOf(view, record.hash)?.other !== undefined) return 'seen_twice'
  return record.state === 'used' ? 'seen_once' : verdictOf(kind, record)
}

function senderOf(event: { readonly [key: string]: unknown } | undefined): string {
  return typeof event?.['sender'] === 'string' ? event['sender'] : 'an unknown sender'
}
