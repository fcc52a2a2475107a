/**
 * Reads which one-time key an Olm pre-key message names. The result is not authenticated: anyone can write a message
 * that names any key. It is used for attribution and reports, and never causes a withdrawal.
 *
 * Format (Olm specification, "Pre-key messages"): version byte 0x03, then protobuf fields: 0x0A the one-time key, 0x12
 * the sender's base key, 0x1A the sender's identity key, 0x22 the message.
 */
import { isJsonObject, type JsonObject } from '@latchkey/protocol'

export type PreKeyMessage = {
  /** Public keys, unpadded base64. */
  readonly oneTimeKey: string
  readonly baseKey: string
  readonly identityKey: string
}

const VERSION = 3
const ONE_TIME_KEY = 0x0a
const BASE_KEY = 0x12
const IDENTITY_KEY = 0x1a
const MESSAGE = 0x22
const TAGS = [ONE_TIME_KEY, BASE_KEY, IDENTITY_KEY, MESSAGE]
const KEY_BYTES = 32
const VARINT_MAX_BYTES = 5

/**
 * The keys that an Olm message of type 0 names; undefined for anything else.
 *
 * Each of the four fields must occur exactly once, and nothing else: of a repeated field some readers take the first
 * and others the last, and the ledger would record another key than the one that opened the message.
 */
export function parsePreKeyMessage(body: string): PreKeyMessage | undefined {
  const bytes = fromBase64(body)
  if (bytes === undefined || bytes[0] !== VERSION) return undefined
  const fields = new Map<number, Uint8Array>()
  for (let at = 1; at < bytes.length; ) {
    const tag = bytes[at] ?? 0
    const length = readVarint(bytes, at + 1)
    if (length === undefined || !TAGS.includes(tag) || fields.has(tag)) return undefined
    at = length.end + length.value
    if (at > bytes.length || (tag !== MESSAGE && length.value !== KEY_BYTES)) return undefined
    fields.set(tag, bytes.subarray(length.end, at))
  }
  const [oneTimeKey, baseKey, identityKey, message] = TAGS.map((tag) => fields.get(tag))
  if (oneTimeKey === undefined || baseKey === undefined || identityKey === undefined) return undefined
  if (message === undefined) return undefined
  return { oneTimeKey: base64(oneTimeKey), baseKey: base64(baseKey), identityKey: base64(identityKey) }
}

/** An Olm message in an `m.room.encrypted` event. */
export type OlmEvent = {
  readonly sender: string
  /** The sender's curve25519 identity key, as the event claims. */
  readonly senderKey: string
  /** Olm ciphertexts by the recipient's curve25519 identity key. */
  readonly ciphertexts: Readonly<Record<string, { readonly type: 0 | 1; readonly body: string }>>
}

const OLM_V1 = 'm.olm.v1.curve25519-aes-sha2'

/** The Olm message of a to-device event; undefined for other kinds of events. */
export function decodeOlmEvent(event: unknown): OlmEvent | undefined {
  if (!isJsonObject(event) || event['type'] !== 'm.room.encrypted') return undefined
  const { sender, content } = event
  if (typeof sender !== 'string' || !isJsonObject(content) || content['algorithm'] !== OLM_V1)
    return undefined
  const { sender_key: senderKey, ciphertext } = content
  if (typeof senderKey !== 'string' || !isJsonObject(ciphertext)) return undefined
  const ciphertexts = Object.entries(ciphertext).filter(
    (entry): entry is [string, JsonObject & { type: 0 | 1; body: string }] => isCiphertext(entry[1]),
  )
  return { sender, senderKey, ciphertexts: Object.fromEntries(ciphertexts) }
}

function isCiphertext(value: unknown): boolean {
  return (
    isJsonObject(value) && (value['type'] === 0 || value['type'] === 1) && typeof value['body'] === 'string'
  )
}

function readVarint(bytes: Uint8Array, start: number): { value: number; end: number } | undefined {
  let value = 0
  for (let i = 0; i < VARINT_MAX_BYTES; i++) {
    const byte = bytes[start + i]
    if (byte === undefined) return undefined
    value += (byte & 0x7f) * 2 ** (7 * i)
    if (byte < 0x80) return { value, end: start + i + 1 }
  }
  return undefined
}

/** Accepts only unpadded base64, as Olm writes it: readers differ about anything else. */
function fromBase64(text: string): Uint8Array | undefined {
  if (!/^[A-Za-z0-9+/]*$/.test(text)) return undefined
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0))
  } catch {
    return undefined
  }
}

function base64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes)).replaceAll('=', '')
}
