/**
 * Records which sessions used this device's one-time keys, as seen in the pre-key messages of syncs. Anyone can forge a
 * message that names any key, so a sighting only explains and reports; it never causes a withdrawal:
 *
 *     issued (according to the server)    --seen--> used
 *     available (according to the server) --seen--> available: forged, or the next answer will report it issued
 *     available (server without pools)    --seen--> used: there is no other source, and nothing is withdrawn for it
 */
import { isJsonObject, type JsonObject, type KeyName } from '@latchkey/protocol'
import type { ServerLevel } from '../events.ts'
import { type KeyState, nameOf, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { hashOf, moveTo } from '../ledger/ledger.ts'
import { decodeOlmEvent, parsePreKeyMessage } from '../olm/pre-key-message.ts'
import type { Kind, Transaction, View } from '../store/stored-state.ts'

/** The sessions seen with a key: the first one, and the first different one. */
export type SightingRecord = {
  readonly at: number
  readonly session: string
  readonly sender: string
  readonly other?: { readonly session: string; readonly sender: string }
}

/** By the hash of the key. */
export const PREKEY_SIGHTINGS: Kind<SightingRecord> = {
  name: 'naming',
  check: (value): value is SightingRecord =>
    typeof (value as Partial<SightingRecord> | null)?.session === 'string',
}

/** A pre-key message, reduced to what is recorded. */
export type PreKeySighting = { readonly hash: string; readonly session: string; readonly sender: string }

const MAX_SIGHTINGS = 2_000
/** Messages examined per sync. */
const MAX_MESSAGES = 5_000
const SESSION_CHARS = 16

/** The pre-key messages among to-device events. `ownKey`: the device's curve25519 key, if known. */
export function preKeySightings(
  events: readonly unknown[],
  ownKey: string | undefined,
): Promise<PreKeySighting[]> {
  const sightings: Promise<PreKeySighting>[] = []
  for (const event of events.slice(0, MAX_MESSAGES)) {
    const it = preKeySighting(event, ownKey)
    if (it !== undefined) sightings.push(it)
  }
  return Promise.all(sightings)
}

/** The key that an event names; undefined when it is not a pre-key message for this device. */
export function preKeySighting(
  event: unknown,
  ownKey: string | undefined,
): Promise<PreKeySighting> | undefined {
  const olm = decodeOlmEvent(event)
  if (olm === undefined) return undefined
  const [first] = Object.values(olm.ciphertexts)
  const ciphertext = ownKey === undefined ? first : olm.ciphertexts[ownKey]
  if (ciphertext?.type !== 0) return undefined
  const message = parsePreKeyMessage(ciphertext.body)
  if (message === undefined) return undefined
  return Promise.all([hashOf(message.oneTimeKey), hashOf(`${message.identityKey} ${message.baseKey}`)]).then(
    ([hash, session]) => ({ hash, session: session.slice(0, SESSION_CHARS), sender: olm.sender }),
  )
}

/** The to-device events of an answer. */
export function toDeviceEvents(answer: JsonObject): readonly unknown[] {
  const { to_device: toDevice } = answer
  const events = isJsonObject(toDevice) ? toDevice['events'] : undefined
  return Array.isArray(events) ? events : []
}

export type SeenTwice = { readonly key: KeyName; readonly senders: readonly string[] }

/** Records sightings of ledger keys. Returns keys seen with a second session. Unknown keys are ignored. */
export function recordSightings(
  transaction: Transaction,
  sightings: readonly PreKeySighting[],
  level: ServerLevel | undefined,
  now: number,
): SeenTwice[] {
  const twice: SeenTwice[] = []
  if (sightings.length === 0) return twice
  const ids = new Map([...transaction.all(ONE_TIME_KEYS)].map(([id, { hash }]) => [hash, id]))
  for (const { hash, session, sender } of sightings) {
    const id = ids.get(hash)
    const record = id === undefined ? undefined : transaction.get(ONE_TIME_KEYS, id)
    if (id === undefined || record === undefined) continue
    const known = transaction.get(PREKEY_SIGHTINGS, hash)
    if (known === undefined) {
      transaction.put(PREKEY_SIGHTINGS, hash, { at: now, session, sender })
      if (isUsedBySighting(record.state, level))
        moveTo(transaction, ONE_TIME_KEYS, id, 'used', now, { session })
    } else if (known.session !== session && known.other === undefined) {
      // Reported once: a forger can create any number of further sessions.
      transaction.put(PREKEY_SIGHTINGS, hash, { ...known, other: { session, sender } })
      twice.push({ key: nameOf(id), senders: [known.sender, sender] })
    }
  }
  forgetOldest(transaction)
  return twice
}

/** The recorded sightings of a key. */
export function sightingOf(view: View, hash: string): SightingRecord | undefined {
  return view.get(PREKEY_SIGHTINGS, hash)
}

function isUsedBySighting(state: KeyState, level: ServerLevel | undefined): boolean {
  return state === 'issued' || (state === 'available' && level !== undefined && level !== 'latchkey')
}

function forgetOldest(transaction: Transaction): void {
  const stored = transaction.all(PREKEY_SIGHTINGS)
  if (stored.size <= MAX_SIGHTINGS) return
  const oldest = [...stored].sort(([, a], [, b]) => a.at - b.at).slice(0, stored.size - MAX_SIGHTINGS)
  for (const [hash] of oldest) transaction.delete(PREKEY_SIGHTINGS, hash)
}
